"""The quality table of the model card: `python -m didi.evaluate --out DIR`.

Generative perplexity and entropy at every step count for the teacher, the student, the student with reward
guidance (RGAS) and the autoregressive peer, all from empty canvases; real text of the test split as the floor
and its words shuffled as the ceiling. Writes `quality.json`, `quality.svg` and `quality.md`, and the student's figures into its
`model.json`, where `steps: "auto"` finds them; a cell that is already there is kept, so an interrupted run goes on
where it stopped.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .causal import sample_causal
from .causal_export import load_causal
from .corpus import SEPARATOR, SOURCES, load_stream, random_windows
from .diffusion import in_batches, sample_plain
from .export import load_backbone, load_discriminator
from .guided_sampling import Guidance, sample_guided
from .measure import measure, shuffle_words
from .precision import add_bf16_flag
from .quality_picture import SHARPENED_TEACHER, draw_quality, quality_markdown

MODELS = Path(__file__).resolve().parent.parent.parent
STEPS = [1, 2, 4, 8, 16, 32, 64, 128]

SAMPLERS = ["teacher", SHARPENED_TEACHER, "student", "student with RGAS"]

# The student's samplers, as `model.json` calls them.
SERVED = {"student": "plain", "student with RGAS": "rgas"}

# Completes all-mask canvases [B, L] in a number of steps.
Sampler = Callable[[Tensor, int], Tensor]


def diffusion_samplers(args: argparse.Namespace) -> dict[str, Sampler]:
    """The samplers of the table, by name."""
    teacher = load_backbone(args.teacher / "weights.fp16.safetensors")
    sharpened = load_backbone(args.teacher / "weights.fp16.safetensors").sharpen(args.teacher_temperature)
    student = load_backbone(args.student / "weights.fp16.safetensors")
    discriminator = load_discriminator(args.student / "discriminator.fp16.safetensors")
    guidance = Guidance(**json.loads((args.student / "model.json").read_text())["guidance"])
    mask_id = student.config.mask_id
    return {
        "teacher": lambda z, steps: sample_plain(teacher, z, steps, mask_id),
        SHARPENED_TEACHER: lambda z, steps: sample_plain(sharpened, z, steps, mask_id),
        "student": lambda z, steps: sample_plain(student, z, steps, mask_id),
        "student with RGAS": lambda z, steps: sample_guided(student, discriminator, guidance, z, steps),
    }


def real_windows(tokenizer: Tokenizer, count: int, length: int, seed: int) -> Tensor:
    """Windows [count, length] of the test split, drawn as the training windows were."""
    streams = {name: load_stream(name, "test", tokenizer) for name in SOURCES}
    return torch.from_numpy(random_windows(streams, count, length, np.random.default_rng(seed)))


def word_starts(tokenizer: Tokenizer) -> Tensor:
    """Which ids [V] begin a word: those with a leading space or line break, and the end of text."""
    pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return torch.tensor([piece.startswith(("Ġ", "Ċ", "<|")) for piece in pieces])


def settings(args: argparse.Namespace) -> dict:
    """What a cell depends on; cells made under other settings are not kept."""
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()[:16]  # noqa: E731
    return {
        "samples": args.samples,
        "length": args.length,
        "seed": args.seed,
        "bf16": args.bf16,
        "teacher_temperature": args.teacher_temperature,
        "teacher": digest(args.teacher / "weights.fp16.safetensors"),
        "student": digest(args.student / "weights.fp16.safetensors"),
        "discriminator": digest(args.student / "discriminator.fp16.safetensors"),
        "guidance": json.loads((args.student / "model.json").read_text())["guidance"],
        "judge": digest(args.judge / "model.safetensors"),
        "peer": digest(args.peer / "model.safetensors"),
    }


class Table:
    """The cells measured so far, on disk."""

    def __init__(self, path: Path, wanted: dict, again: bool):
        self.path, self.cells = path, []
        if path.exists() and not again:
            content = json.loads(path.read_text())
            if content["settings"] != wanted:
                sys.exit(f"{path} was made with other settings or weights: pass --again to start over, or another --out")
            self.cells = content["cells"]
        self.settings = wanted

    def has(self, sampler: str, steps: int | None) -> bool:
        return any(cell["sampler"] == sampler and cell["steps"] == steps for cell in self.cells)

    def add(self, cell: dict) -> None:
        self.cells.append(cell)
        self.path.write_text(json.dumps({"settings": self.settings, "cells": self.cells}, indent=2) + "\n")


def evaluate(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(args.student / "tokenizer.json"))
    end = tokenizer.token_to_id(SEPARATOR)
    judge, peer = load_causal(args.judge), load_causal(args.peer)
    table = Table(args.out / "quality.json", settings(args), args.again)

    def cell(sampler: str, steps: int | None, write: Callable[[], Tensor]) -> None:
        if table.has(sampler, steps):
            return
        # A cell's samples do not depend on which cells came before it.
        torch.manual_seed(args.seed * 1_000_003 + (steps or 0))
        started = time.time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            x = write()
        quality = measure(x, judge, end).to_dict()
        table.add({"sampler": sampler, "steps": steps, **quality, "seconds": round(time.time() - started, 1)})
        low, high = quality["generative_perplexity_interval"]
        budget = f" at {steps} steps" if steps else ""
        print(f"{sampler}{budget}: perplexity {quality['generative_perplexity']} [{low}, {high}], entropy {quality['entropy']}")

    real = real_windows(tokenizer, args.samples, args.length, args.seed)
    cell("real text", None, lambda: real)
    cell("shuffled words", None, lambda: shuffle_words(real, word_starts(tokenizer), args.seed))
    cell("autoregressive peer", args.length, lambda: sample_causal(peer, args.samples, args.length, end))
    samplers = {name: sampler for name, sampler in diffusion_samplers(args).items() if name in args.samplers}
    for name, sampler in samplers.items():
        for steps in args.steps:
            fill = lambda z: sampler(z, steps)  # noqa: B023, E731
            label = f"{name} at {steps} steps"
            cell(name, steps, lambda: in_batches(fill, args.samples, args.length, tokenizer.token_to_id("[MASK]"), label))  # noqa: B023
    draw_quality(table.cells, args.out / "quality.svg")
    (args.out / "quality.md").write_text(quality_markdown(table.cells))
    store_quality(table.cells, args.student / "model.json")


def store_quality(cells: list[dict], path: Path) -> None:
    """The student's cells into a manifest."""
    measures = ("steps", "generative_perplexity", "entropy")
    served = [cell for cell in cells if cell["sampler"] in SERVED]
    rows = [{"sampler": SERVED[cell["sampler"]], **{name: cell[name] for name in measures}} for cell in served]
    path.write_text(json.dumps({**json.loads(path.read_text()), "quality": rows}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--teacher", type=Path, default=MODELS / "stories-mdlm", help="model folder")
    parser.add_argument("--student", type=Path, default=MODELS / "stories-didi", help="model folder with a discriminator")
    parser.add_argument("--peer", type=Path, default=MODELS / "stories-ar", help="folder of the autoregressive peer")
    parser.add_argument("--judge", type=Path, default=MODELS / "stories-judge", help="folder of the causal model that grades")
    parser.add_argument("--out", type=Path, default=MODELS / "stories-didi", help="where the results go")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="step counts")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS, help="rows to measure now")
    parser.add_argument("--samples", type=int, default=512, help="samples a cell")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sample")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--teacher-temperature", type=float, default=0.85, help="of the rows of a sharpened teacher")
    add_bf16_flag(parser, "sample with bfloat16 matrix products; the judge has float32")
    parser.add_argument("--again", action="store_true", help="start over")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    evaluate(parser.parse_args())


if __name__ == "__main__":
    main()
