"""Finds the guidance defaults of a model: `python -m didi.tune_guidance --student FOLDER --judge FOLDER --out FILE`.

A grid over scale, share of re-ranked steps, candidates and temperature at few steps, with samples of a seed of their own (the
card's are of another). Written as CSV; settings that are there already are not repeated.
"""

import argparse
import csv
import itertools
from pathlib import Path

import torch
from tokenizers import Tokenizer

from .causal_export import load_causal
from .corpus import SEPARATOR
from .diffusion import in_batches
from .export import load_backbone, load_discriminator, weight_files
from .guided_sampling import Guidance, sample_guided
from .measure import measure
from .precision import add_bf16_flag

SETTINGS = ["steps", "candidates", "scale_start", "scale_end", "rerank_ratio", "temperature"]
FIELDS = [*SETTINGS, "generative_perplexity", "entropy"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--student", type=Path, required=True, help="model folder with a discriminator, or a distillation's checkpoint.pt")
    parser.add_argument("--judge", type=Path, required=True, help="folder of the judge")
    parser.add_argument("--out", type=Path, required=True, help="CSV of the results")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--scales", type=float, nargs="+", default=[0, 0.25, 1, 4], help="h0 and h1 alike")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0, 0.5, 1], help="shares of re-ranked steps")
    parser.add_argument("--candidates", type=int, nargs="+", default=[4])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1, 0.94], help="of guided draws")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=5)
    add_bf16_flag(parser, "sample with bfloat16 matrix products")
    args = parser.parse_args()

    weights, rewarding = weight_files(args.student)
    student, discriminator = load_backbone(weights), load_discriminator(rewarding)
    judge = load_causal(args.judge)
    end = Tokenizer.from_file(str(args.judge / "tokenizer.json")).token_to_id(SEPARATOR)
    mask_id = student.config.mask_id

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
            quality = measure(x, judge, end)
            figures = {"generative_perplexity": round(quality.generative_perplexity, 3), "entropy": round(quality.entropy, 4)}
            writer.writerow({"steps": steps, **guidance.__dict__, **figures})
            file.flush()
            print(figures)


if __name__ == "__main__":
    main()
