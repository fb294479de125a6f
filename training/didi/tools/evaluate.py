"""Measure the quality table of the model card: `python -m didi.tools.evaluate --out DIR`.

Generative perplexity and entropy at every step count of the teacher, the student, the student with reward
guidance (RGAS) and the autoregressive peer, all from empty canvases; real text of the test split as the floor
and its words shuffled as the ceiling. Writes `quality.json`, `quality.svg` and `quality.md`, and the
student's figures into its `model.json`, where `steps: "auto"` finds them. Cells that are there already are
kept, so an interrupted run continues.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..backbone import load_backbone
from ..causal import load_causal, sample_causal
from ..command import add_bf16_flag, command_parser
from ..corpus import SEPARATOR, split_windows
from ..diffusion import in_batches, sample_plain
from ..guidance import Guidance, load_discriminator, sample_guided
from .measure import load_judge, shuffle_words
from ..tokenizer import MASK

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

MODELS = Path(__file__).resolve().parents[3] / "models"
STEPS = [1, 2, 4, 8, 16, 32, 64, 128]

# The samplers with a step budget, with their lines in the picture.
STYLES = {
    "teacher": {"color": "0.55", "marker": "s", "linestyle": "--"},
    "sharpened teacher": {"color": "0.75", "marker": "v", "linestyle": ":"},
    "student": {"color": "black", "marker": "o", "linestyle": "-"},
    "student with RGAS": {"color": "tab:red", "marker": "^", "linestyle": "-"},
}
# What has no step budget: the levels in the picture.
LEVELS = {"autoregressive peer": "-.", "real text": ":"}

# The student's samplers by their names in `model.json`.
SERVED = {"student": "plain", "student with RGAS": "rgas"}


def diffusion_samplers(args: argparse.Namespace) -> dict[str, Callable[[Tensor, int], Tensor]]:
    """Return the samplers of the table, each of which fills all-mask canvases [B, L] in a number of steps."""
    teacher = load_backbone(args.teacher / "weights.fp16.safetensors")
    sharpened = load_backbone(args.teacher / "weights.fp16.safetensors").sharpen(args.teacher_temperature)
    student = load_backbone(args.student / "weights.fp16.safetensors")
    discriminator = load_discriminator(args.student / "discriminator.fp16.safetensors")
    guidance = Guidance(**json.loads((args.student / "model.json").read_text())["guidance"])
    mask_id = student.config.mask_id
    return {
        "teacher": lambda z, steps: sample_plain(teacher, z, steps, mask_id),
        "sharpened teacher": lambda z, steps: sample_plain(sharpened, z, steps, mask_id),
        "student": lambda z, steps: sample_plain(student, z, steps, mask_id),
        "student with RGAS": lambda z, steps: sample_guided(student, discriminator, guidance, z, steps),
    }


def word_starts(tokenizer: Tokenizer) -> Tensor:
    """Return which ids [V] begin a word: those with a leading space or line break, and the end of text."""
    pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return torch.tensor([piece.startswith(("Ġ", "Ċ", "<|")) for piece in pieces])


def settings(args: argparse.Namespace) -> dict:
    """Return what a cell depends on; a table made with other settings is not continued."""
    weights = {
        "teacher": args.teacher / "weights.fp16.safetensors",
        "student": args.student / "weights.fp16.safetensors",
        "discriminator": args.student / "discriminator.fp16.safetensors",
        "judge": args.judge / "model.safetensors",
        "peer": args.peer / "model.safetensors",
    }
    given = {
        name: getattr(args, name) for name in ("samples", "length", "seed", "bf16", "teacher_temperature")
    }
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in weights.items()}
    guidance = json.loads((args.student / "model.json").read_text())["guidance"]
    return {**given, **digests, "guidance": guidance}


class Table:
    """The cells measured so far, kept in a file."""

    def __init__(self, path: Path, wanted: dict, again: bool):
        self.path, self.cells = path, []
        if path.exists() and not again:
            content = json.loads(path.read_text())
            if content["settings"] != wanted:
                advice = "pass --again to start over, or another --out"
                sys.exit(f"{path} was made with other settings or weights: {advice}")
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
    end, mask_id = tokenizer.token_to_id(SEPARATOR), tokenizer.token_to_id(MASK)
    judge, peer = load_judge(args.judge), load_causal(args.peer)
    table = Table(args.out / "quality.json", settings(args), args.again)

    def cell(sampler: str, steps: int | None, write: Callable[[], Tensor]) -> None:
        if table.has(sampler, steps):
            return
        # A cell's samples do not depend on which cells came before it.
        torch.manual_seed(args.seed * 1_000_003 + (steps or 0))
        started = time.time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            x = write()
        quality = judge(x).to_dict()
        table.add({"sampler": sampler, "steps": steps, **quality, "seconds": round(time.time() - started, 1)})
        name = f"{sampler} at {steps} steps" if steps else sampler
        perplexity, (low, high) = quality["generative_perplexity"], quality["generative_perplexity_interval"]
        print(f"{name}: perplexity {perplexity} [{low}, {high}], entropy {quality['entropy']}")

    real = split_windows("test", tokenizer, args.samples, args.length, args.seed)
    cell("real text", None, lambda: real)
    cell("shuffled words", None, lambda: shuffle_words(real, word_starts(tokenizer), args.seed))
    start = torch.full((args.samples, 1), end)
    cell("autoregressive peer", args.length, lambda: sample_causal(peer, start, args.length))
    samplers = {name: sampler for name, sampler in diffusion_samplers(args).items() if name in args.samplers}
    for name, sampler in samplers.items():
        for steps in args.steps:
            fill = lambda z: sampler(z, steps)  # noqa: B023, E731
            label = f"{name} at {steps} steps"
            cell(name, steps, lambda: in_batches(fill, args.samples, args.length, mask_id, label))  # noqa: B023
    draw_quality(table.cells, args.out / "quality.svg")
    (args.out / "quality.md").write_text(quality_markdown(table.cells))
    store_quality(table.cells, args.student / "model.json")


def store_quality(cells: list[dict], path: Path) -> None:
    """Write the student's cells into a manifest."""
    measures = ("steps", "generative_perplexity", "entropy")
    served = [cell for cell in cells if cell["sampler"] in SERVED]
    rows = [{"sampler": SERVED[c["sampler"]], **{name: c[name] for name in measures}} for c in served]
    path.write_text(json.dumps({**json.loads(path.read_text()), "quality": rows}, indent=2) + "\n")


def quality_markdown(cells: list[dict]) -> str:
    """Return a table with a row for each step count, then a list of what has none.

    A cell is "perplexity (95% interval), entropy".
    """

    def show(cell: dict) -> str:
        perplexity, (low, high) = cell["generative_perplexity"], cell["generative_perplexity_interval"]
        digits = 0 if perplexity >= 100 else 1
        return f"{perplexity:.{digits}f} ({low:.{digits}f} to {high:.{digits}f}), {cell['entropy']:.3f}"

    by_name = {(cell["sampler"], cell["steps"]): show(cell) for cell in cells}
    steps = sorted({cell["steps"] for cell in cells if cell["sampler"] in STYLES})
    lines = [f"| steps | {' | '.join(STYLES)} |", f"| --- |{' --- |' * len(STYLES)}"]
    lines += [f"| {n} | {' | '.join(by_name.get((name, n), '') for name in STYLES)} |" for n in steps]
    others = [cell for cell in cells if cell["sampler"] not in STYLES]
    lines += ["", *(f"- {cell['sampler']}: {show(cell)}" for cell in others)]
    return "\n".join(lines) + "\n"


def save_svg(figure, path: Path) -> None:
    """Write a figure so that equal figures are equal files."""
    plt.rcParams["svg.hashsalt"] = "didi"
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_quality(cells: list[dict], path: Path) -> None:
    """Draw perplexity and entropy against steps, with 95% intervals; what has no step budget is a level."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    steps = sorted({c["steps"] for c in cells if c["sampler"] in STYLES})
    for axes, measure in ((left, "generative_perplexity"), (right, "entropy")):
        for name, style in STYLES.items():
            rows = sorted((c for c in cells if c["sampler"] == name), key=lambda c: c["steps"])
            at, values = [row["steps"] for row in rows], [row[measure] for row in rows]
            reach = [[abs(row[f"{measure}_interval"][i] - row[measure]) for row in rows] for i in (0, 1)]
            axes.errorbar(at, values, yerr=reach, label=name, capsize=2, markersize=4, **style)
        for name, line in LEVELS.items():
            for row in (c for c in cells if c["sampler"] == name):
                axes.axhline(row[measure], color="tab:blue", linestyle=line, linewidth=1, label=name)
        axes.set_xscale("log", base=2)
        axes.set_xticks(steps, [str(s) for s in steps])
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
    left.set_yscale("log")
    left.set_ylabel("generative perplexity (judge)")
    right.set_ylabel("entropy of a sample (nats)")
    left.legend()
    save_svg(figure, path)


def main() -> None:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--teacher", type=Path, default=MODELS / "stories-mdlm", help="model folder")
    add("--student", type=Path, default=MODELS / "stories-didi", help="model folder with a discriminator")
    add("--peer", type=Path, default=MODELS / "stories-ar", help="folder of the autoregressive peer")
    add("--judge", type=Path, default=MODELS / "stories-judge", help="folder of the causal model that judges")
    add("--out", type=Path, default=MODELS / "stories-didi" / "card", help="folder for the results")
    add("--steps", type=int, nargs="+", default=STEPS, help="step counts")
    add("--samplers", nargs="+", choices=STYLES, default=list(STYLES), help="samplers to measure now")
    add("--samples", type=int, default=512, help="samples of a cell")
    add("--length", type=int, default=128, help="tokens of a sample")
    add("--seed", type=int, default=1, help="of the samples")
    add("--teacher-temperature", type=float, default=0.85, help="temperature of the sharpened teacher")
    add_bf16_flag(parser, "sample with bfloat16 matrix products; the judge runs in float32")
    add("--again", action="store_true", help="start over")
    add("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    evaluate(parser.parse_args())


if __name__ == "__main__":
    main()
