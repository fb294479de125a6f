"""Train a teacher and distil it on a GPU, by the clock: `python training/gpu/run.py --out FOLDER`.

The teacher takes 8 minutes, the distillation 3 and the student's discriminator 1, on a card like an H100.
FOLDER gets the logs, samples, and the weights in float16 as pieces of at most 15 MiB, to be joined by `cat
weights.fp16.safetensors.* > weights.fp16.safetensors`. `--rehearse` runs all of it on a CPU, with tiny
networks. Ctrl-C ends the part that is running, and the rest follows.
"""

import sys
from functools import partial
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
from didi.learn import inverse  # noqa: E402
from didi.learn.distillation import run_distillation  # noqa: E402

TOKENIZER = TRAINING.parent / "models" / "stories-mdlm" / "tokenizer.json"
PIECE = 15 << 20  # bytes
PARTS = ("teacher", "student", "discriminator")

# 25.3 million parameters. The corpus is seen about 30 times, hence the dropout.
TEACHER = "--hidden 448 --heads 7 --blocks 9 --batch-tokens 65536 --dropout 0.1 --ema 0.998 --cooldown 0.3"
STUDENT = "--rows 512"
DISCRIMINATOR = "--pool 16384 --groups 64 --discriminator-blocks 6"
TINY_TEACHER = "--hidden 32 --heads 2 --blocks 2 --batch-tokens 512 --context 64 --validate-every 10000"
TINY_STUDENT = "--rows 16 --length 32"
TINY_DISCRIMINATOR = "--pool 64 --groups 8 --discriminator-blocks 1 --length 32"
# As `stories-didi` was made (training/README.md): the temperature is folded into the weights that are fitted.
DISTIL = "--start-temperature 0.95 --iterations 1000000"
FIT = (
    "--reference data --start-temperature 0.85 --branch-steps 4 8 16 --group-size 1 "
    "--no-group-normalisation --discriminator-lr 1e-4"
)
FIT_ITERATIONS = 300  # at most


def split(file: Path) -> None:
    """Replace a file by pieces of at most `PIECE` bytes: FILE.00, FILE.01 and so on."""
    data = file.read_bytes()
    for i, start in enumerate(range(0, len(data), PIECE)):
        file.with_name(f"{file.name}.{i:02}").write_bytes(data[start : start + PIECE])
    file.unlink()


def write_samples(student_file: Path, length: int, file: Path) -> None:
    """Write eight samples at 8 and eight at 16 steps."""
    student = load_backbone(student_file)
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
    add("--student-minutes", type=float, default=3, help="time for the distillation")
    add("--discriminator-minutes", type=float, default=1, help="most time for the discriminator")
    add("--rehearse", action="store_true", help="tiny networks, on the CPU, a few seconds each")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = args.runs or args.out / "runs"
    teacher_sizes, student_sizes, fit_sizes = TEACHER, STUDENT, DISCRIMINATOR
    device, fit_iterations = ["--device", "cuda", "--bf16"], FIT_ITERATIONS
    if args.rehearse:
        args.teacher_minutes = args.student_minutes = args.discriminator_minutes = 0.05
        teacher_sizes, student_sizes, fit_sizes = TINY_TEACHER, TINY_STUDENT, TINY_DISCRIMINATOR
        device, fit_iterations = ["--threads", "1"], 5

    def flags(name: str, minutes: float, settings: str, **paths: Path) -> list[str]:
        files = [part for flag, path in paths.items() for part in (f"--{flag}", str(path))]
        return ["--run", str(runs / name), "--minutes", str(minutes), *files, *device, *settings.split()]

    of_teacher = flags(
        "teacher", args.teacher_minutes, f"--steps 1000000 {teacher_sizes}", tokenizer=TOKENIZER
    )
    train.train(train.parse_args(of_teacher))
    teacher, student, fitted = (runs / name / "checkpoint.pt" for name in PARTS)
    of_student = flags("student", args.student_minutes, f"{DISTIL} {student_sizes}", teacher=teacher)
    distilled = inverse.parse_args(of_student)
    run_distillation(distilled, partial(inverse.start, distilled))
    settings = f"{FIT} {fit_sizes} --iterations {fit_iterations} --discriminator-first {fit_iterations}"
    of_fit = flags(
        "discriminator", args.discriminator_minutes, settings, teacher=student, tokenizer=TOKENIZER
    )
    distill.distill(distill.parse_args(of_fit))

    write_samples(fitted, 32 if args.rehearse else 128, args.out / "samples.txt")
    weights = args.out / "weights.fp16.safetensors"
    save_backbone(load_backbone(fitted), weights)
    save_discriminator(load_discriminator(fitted), args.out / "discriminator.fp16.safetensors")
    save_backbone(load_backbone(teacher), args.out / "teacher.fp16.safetensors")
    for name in PARTS:
        (args.out / f"{name}.csv").write_bytes((runs / name / "log.csv").read_bytes())
    for file in args.out.glob("*.safetensors"):
        split(file)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
