"""Whether matrix products are bfloat16: the flag that the commands share."""

import argparse

import torch


def add_bf16_flag(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Adds `--bf16`, on by default where the processor has such products; elsewhere they take several times as long."""
    pays = torch.backends.cpu.get_cpu_capability() == "AVX512"
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=pays, help=f"{meaning}; by default where there is AVX-512")
