"""The distillation: on a problem of two tokens with exact answers, and as a command."""

import copy
import csv

import pytest
import torch
import torch.nn.functional as F
from test_policy import MASK, STATES, L, exact_kl, teacher_distribution, tiny_backbone, two_step_distribution
from tokenizers import Tokenizer

from conftest import TOKENIZER
from didi import distill as distilling
from didi.backbone import load_backbone, save_backbone
from didi.diffusion import sample_plain
from didi.distill import Distillation, parse_args
from didi.guidance import Discriminator, load_discriminator, save_discriminator, weight_files


def distillation(*flags: str) -> Distillation:
    argv = ["--run", "unused", "--teacher", "unused", "--groups", "16", "--group-size", "4", "--warmup", "10"]
    argv += ["--lr", "1e-3", "--discriminator-lr", "1e-2", "--discriminator-blocks", "2", "--jeffreys", "0"]
    argv += ["--iterations", "400", "--t-min", "0.1", "--ema", "0.9", "--no-bf16", *flags]
    teacher = tiny_backbone(2)
    torch.manual_seed(0)
    pool = sample_plain(teacher, torch.full((2000, L), MASK), 50, MASK)
    run = Distillation(teacher, pool, parse_args(argv))
    run.student.load_state_dict(tiny_backbone(1).state_dict())
    return run


def test_training_reduces_the_exact_kl():
    # The discriminator learns faster than the student, or the two chase each other. Without the entropy
    # bonus: it alone takes the student most of the way here.
    run = distillation("--label-smoothing", "0.02", "--lr", "3e-4", "--entropy", "0")
    target = teacher_distribution(run.teacher).detach()

    def kl() -> float:
        with torch.no_grad():
            student_x = [two_step_distribution(run.student, tau) for tau in (0.25, 0.5, 0.75)]
            return float(exact_kl(torch.stack(student_x).mean(0), target, 0.3))

    before = kl()
    for _ in range(400):
        run.iteration()
    assert kl() < 0.1 * before, f"{before} -> {kl()}"


INGREDIENTS = ["--one-step", "--branch-steps 1 2", "--reach 1", "--discriminator-first 1", "--entropy 0"]
INGREDIENTS += ["--discriminator-rows 16", "--no-group-normalisation", "--weight elbo", "--bf16"]
INGREDIENTS += ["--canvas-odds"]


@pytest.mark.parametrize("flags", INGREDIENTS)
def test_every_ingredient_can_be_switched_off_and_a_resumed_run_repeats(flags):
    first, second = distillation(*flags.split()), distillation(*flags.split())
    for _ in range(2):
        first.iteration()
    second.load(copy.deepcopy(first.state()))
    assert first.iteration() == second.iteration()


def test_only_the_last_blocks_and_the_head_of_the_discriminator_learn():
    discriminator = Discriminator(tiny_backbone(2), trainable_blocks=1)
    names = {name for name, p in discriminator.named_parameters() if p.requires_grad}
    assert all(name.startswith(("main.", "trunk.blocks.1.")) for name in names)
    assert any(name.startswith("main.") for name in names) and any("blocks.1" in name for name in names)


def test_scores_are_fitted_at_masked_positions_or_by_their_sum():
    z = STATES.clone()
    for flag, masked in ((["--canvas-odds"], None), ([], z == MASK)):
        run = distillation("--label-smoothing", "0", *flag)
        with torch.no_grad():
            scores = run.discriminator.eval()(z)  # in training each pass changes the spectral norms
        odds = scores.sum(-1) if masked is None else scores[masked]
        # The same states on both sides: half of them labelled 0, half 1.
        expected = F.softplus(odds).mean() / 2 + F.softplus(-odds).mean() / 2
        assert run.update_discriminator(z, z)[0] == pytest.approx(float(expected), abs=1e-5)


def test_the_student_waits_for_the_discriminator():
    run = distillation("--discriminator-first", "2")
    before = copy.deepcopy(run.student.state_dict())
    judge = run.discriminator.main[0].weight_orig.detach().clone()
    for _ in range(2):
        assert "reward" not in run.iteration()
    assert all(torch.equal(before[name], tensor) for name, tensor in run.student.state_dict().items())
    assert not torch.equal(judge, run.discriminator.main[0].weight_orig)
    assert "reward" in run.iteration()
    assert any(not torch.equal(before[name], tensor) for name, tensor in run.student.state_dict().items())


@torch.no_grad()
def test_a_run_starts_from_a_folder_or_from_a_sharpened_teacher(tmp_path):
    student, judge = tiny_backbone(5), Discriminator(tiny_backbone(6))
    save_backbone(student, tmp_path / "weights.fp16.safetensors")
    save_discriminator(judge, tmp_path / "discriminator.fp16.safetensors")
    run = distillation()
    run.begin_from(tmp_path)
    z = STATES.clone()
    assert torch.allclose(run.student(z), student(z), atol=1e-2)
    assert torch.allclose(run.averaged()(z), student(z), atol=1e-2)
    assert torch.allclose(run.discriminator.eval()(z), judge.eval()(z), rtol=2e-2, atol=2e-2)

    args = parse_args(["--run", "-", "--teacher", "-", "--start-temperature", "0.5"])
    sharp = Distillation(tiny_backbone(2), run.pool, args)
    for model in (sharp.student, sharp.teacher):
        assert torch.allclose(model(z), 2 * tiny_backbone(2)(z), atol=1e-5)


def test_a_distillation_writes_its_log_and_students_and_resumes(folders, tmp_path):
    argv = [
        "--run",
        str(tmp_path),
        "--teacher",
        str(folders / "teacher" / "weights.fp16.safetensors"),
        "--length",
        "12",
    ]
    argv += [
        "--groups",
        "2",
        "--group-size",
        "2",
        "--pool",
        "8",
        "--teacher-steps",
        "3",
        "--warmup",
        "2",
        "--threads",
        "1",
    ]
    argv += ["--save-every", "2", "--keep-every", "2", "--discriminator-blocks", "1"]

    def run(iterations: int, *flags: str) -> list[dict]:
        distilling.distill(distilling.parse_args([*argv, "--iterations", str(iterations), *flags]))
        with (tmp_path / "log.csv").open() as file:
            return list(csv.DictReader(file))

    assert [row["iteration"] for row in run(2)] == ["1", "2"]
    with pytest.raises(SystemExit, match="--resume"):
        run(4)
    assert [row["iteration"] for row in run(4, "--resume")] == ["1", "2", "3", "4"]
    teacher = load_backbone(folders / "teacher" / "weights.fp16.safetensors")
    for n in (2, 4):
        student = load_backbone(tmp_path / f"student-{n:06}.safetensors")
        assert not torch.equal(student.vocab_embed.embedding, teacher.vocab_embed.embedding)
    discriminator = load_discriminator(tmp_path / "checkpoint.pt")
    assert weight_files(tmp_path / "checkpoint.pt") == (tmp_path / "checkpoint.pt",) * 2
    assert discriminator(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3)


def test_real_text_takes_the_teacher_s_place_and_a_group_of_one_is_refused(folders, tmp_path, capsys):
    argv = [
        "--run",
        str(tmp_path),
        "--teacher",
        str(folders / "teacher" / "weights.fp16.safetensors"),
        "--length",
        "12",
    ]
    argv += ["--reference", "data", "--groups", "2", "--pool", "8", "--iterations", "1", "--threads", "1"]
    argv += ["--discriminator-blocks", "1"]
    distilling.distill(distilling.parse_args([*argv, "--group-size", "2"]))
    assert (tmp_path / "checkpoint.pt").exists() and not (tmp_path / "teacher-samples.pt").exists()
    windows = distilling.reference_texts(None, distilling.parse_args(argv))
    text = Tokenizer.from_file(str(TOKENIZER)).decode(windows.flatten().tolist())
    assert windows.shape == (8, 12) and " the" in text
    with pytest.raises(SystemExit):
        distilling.parse_args([*argv, "--group-size", "1"])
    assert "--no-group-normalisation" in capsys.readouterr().err
