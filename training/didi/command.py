"""What the commands share: their parser, some flags, a stop at the next checkpoint, a request."""

import argparse
import ctypes
import json
import signal
import sys
import time
import urllib.request

import torch
from torch import nn

from .backbone import BlockLayers
from .corpus import CORPORA


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Show the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def command_parser(doc: str, **options: str) -> argparse.ArgumentParser:
    """Return a parser whose description is the first sentence of a module's docstring, without its usage."""
    description = doc.splitlines()[0].partition(": `")[0].rstrip(".") + "."
    return argparse.ArgumentParser(description=description, formatter_class=_Help, **options)


def add_bf16_flag(parser: argparse.ArgumentParser, meaning: str) -> None:
    """Add `--bf16`, on by default with AVX-512; elsewhere such products take several times as long."""
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512"
    meaning += "; the default where there is AVX-512"
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=fast, help=meaning)


def add_corpus_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--corpus`."""
    parser.add_argument("--corpus", choices=list(CORPORA), default="stories", help="what is learned")


def add_compile_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--compile`, for `compile_blocks`."""
    parser.add_argument("--compile", action="store_true", help="compile the blocks; needs a C++ compiler")


def compile_blocks(network: nn.Module) -> None:
    """Compile each block of `network` in place, once for each length of a window."""
    for module in network.modules():
        if isinstance(module, BlockLayers):
            module.compile(dynamic=False)


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--device`, for `use_device`."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to compute")


def use_device(device: str) -> None:
    """Create tensors on `device` from now on, unless another is named."""
    torch.set_default_device(device)
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of large tensors instead of returning it to the system at each release.

    A training step on the CPU is 7% faster without the page faults. Other C libraries ignore this.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def add_minutes_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--minutes`, for `Deadline`."""
    parser.add_argument("--minutes", type=float, help="end after this time: plan the steps that fit")


class Deadline:
    """Plan how many steps fit in a number of minutes, from the speed of some early ones.

    >>> deadline, steps, done = Deadline(0.01), 10_000, 0
    >>> while done < steps:
    ...     steps, done = deadline.plan(done, steps), done + 1
    ...     time.sleep(0.001)
    """

    WARM, MEASURED = 10, 50  # steps that are not measured, and those that are
    USED = 0.95  # share of the time that is planned for steps; the rest is for validation and checkpoints

    def __init__(self, minutes: float | None):
        self.seconds, self.started = None if minutes is None else 60 * minutes, time.monotonic()
        self.first: int | None = None  # step from 0 on at which this run began

    def plan(self, done: int, steps: int) -> int:
        """Return the number of steps in all, with `done` steps done and `steps` planned so far.

        Steps below 0 are another kind, and are not measured.
        """
        if self.seconds is None:
            return steps
        now = time.monotonic()
        if self.first is None and done >= 0:
            self.first = done
        run = -1 if self.first is None else done - self.first
        if run == self.WARM:
            self.measured_from = now
        elif run == self.WARM + self.MEASURED:
            each = (now - self.measured_from) / self.MEASURED
            left = self.USED * self.seconds - (now - self.started)
            steps = done + max(1, int(left / each))
        elif now - self.started > self.seconds:
            steps = done
        return steps


def stop_on_signal() -> list[bool]:
    """Return a list that becomes non-empty at SIGINT or SIGTERM, so that a loop can end at a checkpoint."""
    stop: list[bool] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.append(True))
    return stop


def generate(server: str, body: dict) -> dict:
    """Return the answer of a running server to POST /generate. Raise HTTPError if it refuses the request."""
    data, headers = json.dumps(body).encode(), {"content-type": "application/json"}
    request = urllib.request.Request(f"{server}/generate", data, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
