"""What each ingredient of the distillation is worth: `python -m didi.ablation --run DIR --teacher FILE --judge DIR --out FILE`.

Short distillations that differ in one flag, from one pool of teacher samples or the training text, and from one
checkpoint if one is given; then each student's generative perplexity and entropy. Runs that are complete, and variants
already in the result file, are not repeated.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer

from .causal_export import load_causal
from .corpus import SEPARATOR
from .diffusion import in_batches, sample_plain
from .distill import distill, parse_args as distill_args
from .export import load_backbone
from .measure import measure

VARIANTS = {
    "all ingredients": [],
    "one step instead of two": ["--one-step"],
    "no group normalisation": ["--no-group-normalisation"],
    "no regulariser": ["--jeffreys", "0"],
    "no entropy bonus": ["--entropy", "0"],
    "branches of 8 steps instead of two": ["--branch-steps", "8"],
}


def train_variant(run: Path, args: argparse.Namespace, flags: list[str]) -> Path:
    """Distils in `run` unless that is done; returns the student's file."""
    student = run / f"student-{args.iterations:06}.safetensors"
    if not student.exists():
        run.mkdir(parents=True, exist_ok=True)
        for given in (args.pool, args.start):
            if given and not (run / given.name).exists():
                shutil.copyfile(given, run / given.name)
        resume = ["--resume"] if (run / "checkpoint.pt").exists() else []
        common = ["--run", str(run), "--teacher", str(args.teacher), "--iterations", str(args.iterations)]
        distill(distill_args([*common, "--keep-every", str(args.iterations), *resume, *args.flags, *flags]))
    return student


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Options after -- go to every distillation (see didi.distill --help).",
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the distillations")
    parser.add_argument("--pool", type=Path, help="teacher-samples.pt of a distillation run (default: each draws its own)")
    parser.add_argument("--start", type=Path, help="checkpoint.pt that every distillation goes on from")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's weights")
    parser.add_argument("--judge", type=Path, required=True, help="folder of the judge")
    parser.add_argument("--out", type=Path, required=True, help="result file (.json)")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--steps", type=int, default=8, help="steps of the samples that are judged")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("flags", nargs="*", help="options of every distillation")
    args = parser.parse_args()

    judge = load_causal(args.judge)
    end = Tokenizer.from_file(str(args.judge / "tokenizer.json")).token_to_id(SEPARATOR)
    rows = json.loads(args.out.read_text()) if args.out.exists() else []

    def judged(variant: str, weights: Path) -> None:
        student = load_backbone(weights)
        mask_id = student.config.mask_id
        torch.manual_seed(args.seed)
        x = in_batches(lambda z: sample_plain(student, z, args.steps, mask_id), args.samples, args.length, mask_id, variant)
        row = {"variant": variant, "steps": args.steps, **measure(x, judge, end).to_dict()}
        rows.append(row)
        rows.sort(key=lambda row: order.index(row["variant"]))
        args.out.write_text(json.dumps(rows, indent=2) + "\n")
        print(f"{variant}: perplexity {row['generative_perplexity']}, entropy {row['entropy']}")

    order = ["teacher", "start", *VARIANTS]
    done = {row["variant"] for row in rows}
    for given, weights in {"teacher": args.teacher, "start": args.start}.items():
        if weights and given not in done:
            judged(given, weights)
    for variant, flags in VARIANTS.items():
        if variant not in done:
            folder = args.run / variant.replace(" ", "-")
            judged(variant, train_variant(folder, args, flags))


if __name__ == "__main__":
    main()
