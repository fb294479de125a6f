"""Draw a distillation's log: `python -m didi.tools.distill_curves --run DIR --out FOLDER [--teacher FILE
--judge DIR]`.

Draws `log.csv` into `distillation.svg`. With a teacher and a judge, also measures the students that the run
kept into `distillation.csv` and draws them: few steps and few samples, for a curve rather than for the card's
figures.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from ..backbone import load_backbone
from ..command import command_parser
from ..diffusion import in_batches, sample_plain
from .picture import plt, save_svg
from .measure import load_judge

FIELDS = ["iteration", "generative_perplexity", "low", "high", "entropy"]
LOGGED = {
    "accuracy": "discriminator's accuracy",
    "reward": "reward (log-odds)",
    "fake_nats": "fake teacher's cross-entropy (nats)",
    "divergence": "divergence that the student descends (nats)",
    "jeffreys": "divergence from the teacher (nats)",
    "entropy": "entropy of predictions (nats)",
}


def judge_students(args: argparse.Namespace) -> list[dict]:
    """Return a row for each kept student, and one for the teacher as iteration 0."""
    judge = load_judge(args.judge)
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
        fill = lambda z: sample_plain(model, z, args.steps, mask_id)  # noqa: B023, E731
        quality = judge(in_batches(fill, args.samples, args.length, mask_id, label)).to_dict()
        low, high = quality["generative_perplexity_interval"]
        figures = {k: quality[k] for k in ("generative_perplexity", "entropy")}
        rows.append({**figures, "iteration": iteration, "low": low, "high": high})
        print(f"{label}: perplexity {quality['generative_perplexity']}, entropy {quality['entropy']}")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: int(row["iteration"])))
    return list(csv.DictReader(path.open()))


def draw(judged: list[dict], log: list[dict], steps: int, path: Path) -> None:
    """Draw a panel for each logged figure that is not 0 throughout, after the judged ones."""
    used = {field for row in log for field, value in row.items() if value and float(value)}
    logged = {field: title for field, title in LOGGED.items() if field in used}
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
        present = [(int(row["iteration"]), float(row[field])) for row in log if row[field]]
        iterations, values = np.array(present).T
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        panel.plot(iterations[len(iterations) - len(smooth) :], smooth, color="black", linewidth=1)
        panel.set_title(f"{title}, mean of {window}", fontsize=10)
    for panel in axes.flatten():
        panel.set_xlabel("iteration")
        panel.grid(alpha=0.3)
    save_svg(figure, path)


def main() -> None:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the distillation, or of its log.csv")
    add("--teacher", type=Path, help="the teacher's weights")
    add("--judge", type=Path, help="folder of the judge")
    add("--out", type=Path, required=True, help="folder for csv and picture")
    add("--steps", type=int, default=8, help="steps of the samples that are judged")
    add("--samples", type=int, default=128, help="samples that are judged")
    add("--length", type=int, default=128, help="tokens of a sample")
    add("--seed", type=int, default=3, help="of the samples")
    args = parser.parse_args()
    if (args.teacher is None) != (args.judge is None):
        parser.error("--teacher and --judge go together")
    judged = judge_students(args) if args.judge else []
    with (args.run / "log.csv").open() as file:
        draw(judged, list(csv.DictReader(file)), args.steps, args.out / "distillation.svg")


if __name__ == "__main__":
    main()
