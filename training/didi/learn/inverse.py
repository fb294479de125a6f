"""Distil the teacher into a few-step student by inverse distillation: `python -m didi.learn.inverse --run DIR
--teacher FILE`.

After IDLM (arXiv 2602.19066): a second denoiser, the fake teacher, is trained on the student's samples, and
the student so that the fake teacher predicts them no better than the teacher does. In one iteration the
student does one step of each of its canvases; a share of the positions that the step reveals is hidden again;
the fake teacher learns to predict them, and the student descends

    the sum over hidden positions i and tokens v of p_i(v) (log fake_i(v) - log teacher_i(v)),

where p is the student's prediction before the step, and the other two are predictions after it. With a fake
teacher that has converged this is the gradient of KL(student || teacher) of what the steps reveal together,
to the extent that the hidden positions see all others. Nothing is differentiated through drawn tokens.

A run is a folder: `checkpoint.pt`, `log.csv`, and, every `--keep-every` iterations, the averaged student of
that moment, `student-N.safetensors`.
"""

import argparse
import copy
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..backbone import Backbone, load_backbone
from ..diffusion import categorical, subs
from .distillation import DistillationBase, distillation_parser, run_distillation
from .policy import mask_chances, own_states


def inverse_loss(log_p: Tensor, log_fake: Tensor, log_teacher: Tensor, clip: float = 8.0) -> Tensor:
    """Return the sum over v of p(v) (log fake(v) - log teacher(v)) [P], for log_p and the others [P, V].

    Its gradient flows through p alone. Differences are clipped to +-clip.
    """
    # The mask has log-probability minus infinity in all three.
    difference = (log_fake - log_teacher).nan_to_num(0.0).clamp(-clip, clip)
    return (log_p.exp() * difference.detach()).sum(-1)


def mean(values: Tensor) -> Tensor:
    """Return the mean, or 0 of no values."""
    return values.sum() / max(1, values.numel())


class Canvases:
    """What the student writes: canvases at all steps of all step counts. Each iteration does a step of each;
    after its last one a canvas begins again.
    """

    def __init__(self, student: Backbone, args: argparse.Namespace):
        self.mask_id = student.config.mask_id
        # Row i is generated in steps[i mod the number of step counts].
        self.chances = pad_sequence([mask_chances(steps) for steps in args.steps], batch_first=True)
        self.last = torch.tensor(args.steps)
        self.of = torch.arange(args.rows) % len(args.steps)
        self.uniform = torch.rand(args.rows, args.length)
        self.z, self.at = torch.empty_like(self.uniform, dtype=torch.int64), torch.empty_like(self.of)
        for index, steps in enumerate(args.steps):
            rows = slice(index, None, len(args.steps))
            self.z[rows], self.at[rows] = own_states(student, steps, self.uniform[rows])

    def shown(self) -> Tensor:
        """Return the positions [N, L] that the next step reveals."""
        chance = self.chances[self.of, self.at + 1]
        return (self.z == self.mask_id) & (self.uniform >= chance[:, None])

    def advance(self, z: Tensor) -> None:
        """Take `z` [N, L] as the state after the next step."""
        done = self.at + 1 == self.last[self.of]
        self.at = torch.where(done, 0, self.at + 1)
        self.z = torch.where(done[:, None], self.mask_id, z)
        self.uniform = torch.where(done[:, None], torch.rand_like(self.uniform), self.uniform)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("z", "at", "uniform")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self, name, value.clone())


class InverseDistillation(DistillationBase):
    """IDLM: a denoiser of the student's samples judges it."""

    PARTS = ("student", "fake", "student_optimizer", "fake_optimizer", "canvases")
    LOG_FIELDS = ["fake_nats", "divergence", "entropy", "gradient_norm"]
    WAIT = "fake_first"

    def __init__(self, teacher: Backbone, student: Backbone, args: argparse.Namespace):
        """Start from `student`, which may be smaller than `teacher`."""
        self.teacher = teacher.requires_grad_(False).sharpen(args.teacher_temperature)
        super().__init__(student.sharpen(args.start_temperature), args)
        self.fake = copy.deepcopy(self.student)
        self.fake_optimizer = self.adamw(self.fake, args.fake_lr)
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.bf16):
            self.canvases = Canvases(self.student, args)

    def update_fake(self, log_p: Tensor, log_fake: Tensor) -> float:
        """Do one step of the fake teacher towards the student's p [P, V]; return its cross-entropy."""
        loss = mean(-(log_p.detach().exp() * log_fake.clamp(min=-1e4)).sum(-1))
        self.fake_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.fake.parameters(), 1.0)
        self.fake_optimizer.step()
        return float(loss.detach())

    def autocast_iteration(self) -> dict[str, float]:
        args, mask_id = self.args, self.student.config.mask_id
        z, shown = self.canvases.z, self.canvases.shown()
        hidden = shown & (torch.rand(z.shape) < args.hide)
        log_p = subs(self.student(z, where=shown), mask_id)
        after = z.masked_scatter(shown, categorical(log_p.detach()))
        self.canvases.advance(after)
        after = after.masked_fill(hidden, mask_id)
        log_p = log_p[hidden[shown]]
        log_fake = subs(self.fake(after, where=hidden), mask_id)
        with torch.no_grad():
            log_teacher = subs(self.teacher(after, where=hidden), mask_id)
        loss = mean(inverse_loss(log_p, log_fake, log_teacher))
        log = {"fake_nats": self.update_fake(log_p, log_fake), "divergence": float(loss.detach())}
        self.done += 1
        if self.done <= args.fake_first:
            return log
        spread = mean(-(log_p.detach().exp() * log_p.detach().clamp(min=-1e4)).sum(-1))
        return {**log, "entropy": float(spread), "gradient_norm": self.step_student(loss)}


def start(args: argparse.Namespace, teacher: Backbone) -> InverseDistillation:
    """Return the distillation at iteration 0."""
    student = load_backbone(args.student) if args.student else copy.deepcopy(teacher)
    return InverseDistillation(teacher, student, args)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = distillation_parser(__doc__, lr=1e-4, least_lr=1e-5, warmup=10, ema=0.98)
    add = parser.add_argument
    add("--student", type=Path, help="weights to start from, of any size (default: the teacher's)")
    add("--teacher-temperature", type=float, default=1.0, help="sharpen the teacher")
    add("--steps", type=int, nargs="+", default=[8, 16], help="step counts of the student")
    add("--rows", type=int, default=64, help="samples of an iteration")
    add("--hide", type=float, default=0.2, help="share of the revealed positions that is predicted again")
    add("--fake-lr", type=float, default=3e-4, help="the fake teacher's learning rate")
    add("--fake-first", type=int, default=0, help="iterations before the student begins to learn")
    return parser.parse_args(argv)


if __name__ == "__main__":
    args = parse_args()
    run_distillation(args, partial(start, args))
