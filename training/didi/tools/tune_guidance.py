"""Find a model's guidance defaults: `python -m didi.tools.tune_guidance --student FOLDER --judge FOLDER --out
FILE`.

Measures a grid over steps, share of re-ranked steps, scale, candidates and temperature, with another seed
than the card's. Rows that are in the CSV already are not repeated.
"""

import csv
import itertools
from pathlib import Path

import torch

from ..backbone import load_backbone
from ..command import add_bf16_flag, command_parser
from ..diffusion import in_batches
from ..guidance import Guidance, load_discriminator, sample_guided, weight_files
from .measure import load_judge

SETTINGS = ["steps", "candidates", "scale_start", "scale_end", "rerank_ratio", "temperature"]
FIELDS = [*SETTINGS, "generative_perplexity", "entropy"]


def main() -> None:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--student", type=Path, required=True, help="model folder, or a distillation's checkpoint.pt")
    add("--judge", type=Path, required=True, help="folder of the judge")
    add("--out", type=Path, required=True, help="CSV of the results")
    add("--steps", type=int, nargs="+", default=[4, 8, 16], help="step counts")
    add("--scales", type=float, nargs="+", default=[0, 0.25, 1, 4], help="scales, the same at start and end")
    add("--ratios", type=float, nargs="+", default=[0, 0.5, 1], help="shares of re-ranked steps")
    add("--candidates", type=int, nargs="+", default=[4], help="candidates of a re-ranked step")
    add("--temperatures", type=float, nargs="+", default=[1, 0.94], help="temperatures of guided draws")
    add("--samples", type=int, default=256, help="samples of a row")
    add("--length", type=int, default=128, help="tokens of a sample")
    add("--seed", type=int, default=5, help="of the samples")
    add_bf16_flag(parser, "sample with bfloat16 matrix products")
    args = parser.parse_args()

    weights, rewarding = weight_files(args.student)
    student, discriminator = load_backbone(weights), load_discriminator(rewarding)
    judge, mask_id = load_judge(args.judge), student.config.mask_id
    rows = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    done = {tuple(float(row[field]) for field in SETTINGS) for row in rows}
    with args.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not rows:
            writer.writeheader()
        grid = itertools.product(args.steps, args.ratios, args.scales, args.candidates, args.temperatures)
        for steps, ratio, scale, candidates, temperature in grid:
            if ratio == 1 and scale != args.scales[0]:
                continue  # nothing is tilted
            guidance = Guidance(candidates, scale, scale, ratio, temperature)
            if (steps, candidates, scale, scale, ratio, temperature) in done:
                continue
            torch.manual_seed(args.seed)
            fill = lambda z: sample_guided(student, discriminator, guidance, z, steps)  # noqa: B023, E731
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
                x = in_batches(fill, args.samples, args.length, mask_id, f"{steps} steps, {guidance}")
            quality = judge(x)
            perplexity, entropy = round(quality.generative_perplexity, 3), round(quality.entropy, 4)
            figures = {"generative_perplexity": perplexity, "entropy": entropy}
            writer.writerow({"steps": steps, **guidance.__dict__, **figures})
            file.flush()
            print(figures)


if __name__ == "__main__":
    main()
