"""Train a teacher and distil it on a GPU, by the clock: `python training/gpu/run.py --out FOLDER`.

The teacher takes 8 minutes and the distillation 4, on a card like an H100. FOLDER gets the logs, samples, and
the weights in float16 as pieces of at most 15 MiB, to be joined by `cat weights.fp16.safetensors.* >
weights.fp16.safetensors`. `--rehearse` runs all of it on a CPU, with tiny networks. Ctrl-C ends the part that
is running, and the rest follows.
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

TRAINING = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TRAINING))

from didi import distill, train  # noqa: E402
from didi.backbone import load_backbone, save_backbone  # noqa: E402
from didi.command import command_parser  # noqa: E402
from didi.diffusion import sample_plain  # noqa: E402
from didi.guidance import load_discriminator, save_discriminator  # noqa: E402

TOKENIZER = TRAINING.parent / "models" / "stories-mdlm" / "tokenizer.json"
PIECE = 15 << 20  # bytes

# 25.3 million parameters. The corpus is seen about 30 times, hence the dropout.
TEACHER = "--hidden 448 --heads 7 --blocks 9 --batch-tokens 65536 --dropout 0.1 --ema 0.998 --cooldown 0.3"
STUDENT = (
    "--pool 16384 --discriminator-first 250 --groups 64 --group-size 8 --discriminator-rows 128 "
    "--discriminator-blocks 6 --warmup 10 --ema 0.99"
)
TINY_TEACHER = "--hidden 32 --heads 2 --blocks 2 --batch-tokens 512 --context 64 --validate-every 10000"
TINY_STUDENT = (
    "--pool 64 --discriminator-first 5 --groups 8 --group-size 2 --discriminator-blocks 1 --length 32"
)
# As `stories-didi` was distilled (training/README.md).
RECIPE = (
    "--reference data --start-temperature 0.88 --branch-steps 8 --reach 12 --lr 1e-4 --least-lr 1e-5 "
    "--discriminator-lr 1e-4 --jeffreys 1 --entropy 0"
)


def split(file: Path) -> None:
    """Replace a file by pieces of at most `PIECE` bytes: FILE.00, FILE.01 and so on."""
    data = file.read_bytes()
    for i, start in enumerate(range(0, len(data), PIECE)):
        file.with_name(f"{file.name}.{i:02}").write_bytes(data[start : start + PIECE])
    file.unlink()


def write_samples(student_file: Path, temperature: float, length: int, file: Path) -> None:
    """Write eight samples at 8 and eight at 16 steps, from the student sharpened to `temperature`."""
    student = load_backbone(student_file).sharpen(temperature)
    mask_id, tokenizer, parts = student.config.mask_id, Tokenizer.from_file(str(TOKENIZER)), []
    for steps in (8, 16):
        torch.manual_seed(steps)
        samples = sample_plain(student, torch.full((8, length), mask_id), steps, mask_id)
        parts += [f"{steps} steps: {tokenizer.decode(row)}\n" for row in samples.tolist()]
    file.write_text("\n".join(parts), encoding="utf-8")


def main() -> None:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the results")
    add("--runs", type=Path, help="folder of the checkpoints (default: OUT/runs)")
    add("--teacher-minutes", type=float, default=8, help="time for the teacher")
    add("--student-minutes", type=float, default=4, help="time for the distillation")
    add("--rehearse", action="store_true", help="tiny networks, on the CPU, a few seconds each")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = args.runs or args.out / "runs"
    teacher_sizes, student_sizes, device = TEACHER, STUDENT, ["--device", "cuda", "--bf16"]
    if args.rehearse:
        args.teacher_minutes = args.student_minutes = 0.05
        teacher_sizes, student_sizes, device = TINY_TEACHER, TINY_STUDENT, ["--threads", "1"]

    tokenizer, minutes = ["--tokenizer", str(TOKENIZER)], ["--minutes", str(args.teacher_minutes)]
    flags = ["--run", str(runs / "teacher"), "--steps", "1000000", *tokenizer, *minutes, *device]
    train.train(train.parse_args([*flags, *teacher_sizes.split()]))
    teacher, minutes = runs / "teacher" / "checkpoint.pt", ["--minutes", str(args.student_minutes)]
    flags = ["--run", str(runs / "student"), "--teacher", str(teacher), "--iterations", "1000000"]
    sizes = [*student_sizes.split(), *RECIPE.split()]
    distill.distill(distill.parse_args([*flags, *tokenizer, *minutes, *device, *sizes]))

    student = runs / "student" / "checkpoint.pt"
    write_samples(student, 0.85, 32 if args.rehearse else 128, args.out / "samples.txt")
    weights = args.out / "weights.fp16.safetensors"
    save_backbone(load_backbone(student), weights)
    save_discriminator(load_discriminator(student), args.out / "discriminator.fp16.safetensors")
    save_backbone(load_backbone(teacher), args.out / "teacher.fp16.safetensors")
    for name in ("teacher", "student"):
        (args.out / f"{name}.csv").write_bytes((runs / name / "log.csv").read_bytes())
    for file in args.out.glob("*.safetensors"):
        split(file)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
