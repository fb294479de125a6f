"""Inverse distillation: on a problem of two tokens with exact answers, and as a command."""

import copy
import csv
import signal
from functools import partial
from pathlib import Path

import torch
from test_policy import L, MASK, teacher_distribution, tiny_backbone, two_step_distribution

from didi.backbone import Backbone, BackboneConfig, load_backbone, save_backbone
from didi.learn.inverse import InverseDistillation, inverse_loss, parse_args, start
from didi.learn.distillation import run_distillation
from didi.learn.policy import mask_chances


def distillation(*flags: str) -> InverseDistillation:
    argv = ["--run", "unused", "--teacher", "unused", "--length", str(L), "--rows", "128", "--no-bf16"]
    argv += ["--steps", "2", "--hide", "0.5", "--ema", "0.9", "--iterations", "300", *flags]
    return InverseDistillation(tiny_backbone(2), tiny_backbone(1), parse_args(argv))


def test_training_reduces_the_exact_kl():
    run = distillation("--lr", "1e-3", "--fake-lr", "1e-2", "--fake-first", "20", "--seed", "2")
    target = teacher_distribution(run.teacher).detach()

    @torch.no_grad()
    def kl(student: Backbone) -> float:
        written = two_step_distribution(student, 0.5)
        return float((written * (written / target).log()).sum())

    before = kl(run.student)
    for _ in range(run.args.iterations):
        run.iteration()
    assert kl(run.averaged()) < 0.01 * before, f"{before} -> {kl(run.averaged())}"


def test_the_loss_is_a_divergence_whose_gradient_flows_through_the_student():
    logits = torch.tensor([[0.3, -0.2, 0.9, -torch.inf]]).requires_grad_()
    others = torch.tensor([[-1.0, 0.5, 0.1, -torch.inf], [9.0, 0.0, 0.0, -torch.inf]])
    p, fake, teacher = torch.log_softmax(torch.cat((logits, others)), -1).split(1)
    loss = inverse_loss(p, fake, teacher)
    difference = (fake - teacher)[:, :3].detach().clamp(-8, 8)
    assert torch.allclose(loss, (p.exp()[:, :3] * difference).sum(-1))
    loss.sum().backward()
    share = torch.softmax(logits.detach()[:, :3], -1)
    assert torch.allclose(logits.grad[:, :3], share * (difference - (share * difference).sum(-1)), atol=1e-6)


def test_canvases_are_at_all_steps_and_lose_masks_as_the_schedule_says():
    run = distillation("--steps", "2", "3", "--fake-first", "1000")
    canvases = run.canvases
    counts = {steps: torch.zeros(steps) for steps in run.args.steps}
    masked = {steps: torch.zeros(steps) for steps in run.args.steps}
    for _ in range(60):
        for index, steps in enumerate(run.args.steps):
            rows = canvases.of == index
            share = (canvases.z[rows] == MASK).float().mean(1)
            counts[steps].index_add_(0, canvases.at[rows], torch.ones(len(share)))
            masked[steps].index_add_(0, canvases.at[rows], share)
        run.iteration()
    for steps, count in counts.items():
        assert torch.allclose(count, count.mean().expand(steps), rtol=0.1)
        assert torch.allclose(masked[steps] / count, mask_chances(steps)[:-1], atol=0.03)


def test_the_student_waits_for_the_fake_teacher_and_a_resumed_run_repeats():
    first, second = (distillation("--fake-first", "2") for _ in range(2))
    before = copy.deepcopy(first.student.state_dict())
    for _ in range(2):
        assert "gradient_norm" not in first.iteration()
    assert all(torch.equal(before[name], tensor) for name, tensor in first.student.state_dict().items())
    assert "gradient_norm" in first.iteration()
    second.load(copy.deepcopy(first.state()))
    assert first.iteration() == second.iteration()


def test_an_iteration_that_hides_nothing_leaves_the_weights_finite():
    run = distillation("--hide", "0")
    figures = run.iteration()
    assert figures["divergence"] == figures["fake_nats"] == 0
    assert all(value.isfinite().all() for value in run.student.state_dict().values())


def run_command(folder: Path, *flags: str) -> None:
    """Distil a teacher of 3 blocks into a student of 2, in the folder `run` of `folder`."""
    torch.manual_seed(3)
    larger = Backbone(BackboneConfig(vocab_size=MASK + 1, hidden=32, blocks=3, heads=2, cond=8, context=4))
    save_backbone(larger, folder / "teacher.safetensors")
    save_backbone(tiny_backbone(1), folder / "student.safetensors")
    argv = ["--run", str(folder / "run"), "--teacher", str(folder / "teacher.safetensors"), "--rows", "8"]
    argv += ["--student", str(folder / "student.safetensors"), "--length", str(L), "--keep-every", "2"]
    args = parse_args([*argv, *flags])
    run_distillation(args, partial(start, args))


def test_a_smaller_student_is_distilled_by_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # Ctrl-C stays pytest's
    run_command(tmp_path, "--iterations", "2")
    run_command(tmp_path, "--iterations", "4", "--resume")
    kept = load_backbone(tmp_path / "run" / "student-000004.safetensors")
    assert kept.config == tiny_backbone(1).config
    assert not torch.equal(kept.vocab_embed.embedding, tiny_backbone(1).vocab_embed.embedding.half().float())
    with (tmp_path / "run" / "log.csv").open() as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


def test_the_blocks_of_all_three_networks_are_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: compiled.append(module))
    run_command(tmp_path, "--iterations", "1", "--compile")
    assert len(set(compiled)) == 3 + 2 + 2  # teacher, student, fake teacher
