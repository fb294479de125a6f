"""Pictures of a distillation: `python -m didi.distill_curves --run DIR --out FOLDER [--teacher FILE --judge DIR]`.

Draws what the run logged (`log.csv`) into `distillation.svg`. With a teacher and a judge also the students that the run
kept, which it judges (few steps, few samples: a curve, not the card's figures) into `distillation.csv`.
"""

import argparse
import csv
from pathlib import Path

import matplotlib
import numpy as np
import torch
from tokenizers import Tokenizer

from .causal_export import load_causal
from .corpus import SEPARATOR
from .diffusion import in_batches, sample_plain
from .export import load_backbone
from .measure import measure
from .quality_picture import save_svg

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

FIELDS = ["iteration", "generative_perplexity", "low", "high", "entropy"]
LOGGED = {
    "accuracy": "discriminator's accuracy",
    "reward": "reward (log-odds)",
    "jeffreys": "divergence from the teacher (nats)",
    "entropy": "entropy of predictions (nats)",
}


def judge_students(args: argparse.Namespace) -> list[dict]:
    """A row for each kept student, and one for the teacher as iteration 0."""
    judge = load_causal(args.judge)
    end = Tokenizer.from_file(str(args.judge / "tokenizer.json")).token_to_id(SEPARATOR)
    path = args.out / "distillation.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    done = {int(row["iteration"]) for row in rows}
    students = {int(p.stem.split("-")[1]): p for p in sorted(args.run.glob("student-*.safetensors"))}
    for iteration, weights in {0: args.teacher, **students}.items():
        if iteration in done:
            continue
        model = load_backbone(weights)
        mask_id = model.config.mask_id
        torch.manual_seed(args.seed)
        label = f"iteration {iteration}"
        x = in_batches(lambda z: sample_plain(model, z, args.steps, mask_id), args.samples, args.length, mask_id, label)  # noqa: B023
        quality = measure(x, judge, end).to_dict()
        low, high = quality["generative_perplexity_interval"]
        rows.append({**{k: quality[k] for k in ("generative_perplexity", "entropy")}, "iteration": iteration, "low": low, "high": high})
        print(f"{label}: perplexity {quality['generative_perplexity']}, entropy {quality['entropy']}")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: int(row["iteration"])))
    return list(csv.DictReader(path.open()))


def draw(judged: list[dict], log: list[dict], steps: int, path: Path) -> None:
    # What was switched off is 0 throughout.
    logged = {field: title for field, title in LOGGED.items() if any(float(row[field] or 0) for row in log)}
    count = len(logged) + (2 if judged else 0)
    figure, axes = plt.subplots(1, count, figsize=(4 * count, 3), squeeze=False)
    panels = list(axes.flatten())
    if judged:
        perplexity, entropy = panels.pop(0), panels.pop(0)
        at = [int(row["iteration"]) for row in judged]
        value = lambda key: np.array([float(row[key]) for row in judged])  # noqa: E731
        perplexity.fill_between(at, value("low"), value("high"), color="0.85")
        perplexity.plot(at, value("generative_perplexity"), "o-", color="black", markersize=3)
        perplexity.set_title(f"generative perplexity, {steps} steps", fontsize=10)
        entropy.plot(at, value("entropy"), "o-", color="black", markersize=3)
        entropy.set_title("entropy of samples (nats)", fontsize=10)
    window = max(1, len(log) // 50)
    for panel, (field, title) in zip(panels, logged.items()):
        # Before the student begins to learn, only the discriminator has figures.
        there = [(int(row["iteration"]), float(row[field])) for row in log if row[field]]
        iterations, values = np.array(there).T
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        panel.plot(iterations[len(iterations) - len(smooth) :], smooth, color="black", linewidth=1)
        panel.set_title(f"{title}, mean of {window}", fontsize=10)
    for panel in axes.flatten():
        panel.set_xlabel("iteration")
        panel.grid(alpha=0.3)
    save_svg(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the distillation, or of its log.csv")
    parser.add_argument("--teacher", type=Path, help="the teacher's weights")
    parser.add_argument("--judge", type=Path, help="folder of the judge")
    parser.add_argument("--out", type=Path, required=True, help="folder for csv and picture")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    if (args.teacher is None) != (args.judge is None):
        parser.error("--teacher and --judge go together")
    judged = judge_students(args) if args.judge else []
    with (args.run / "log.csv").open() as file:
        draw(judged, list(csv.DictReader(file)), args.steps, args.out / "distillation.svg")


if __name__ == "__main__":
    main()
