"""Distil the teacher into a few-step student by DiDi-Instruct: `python -m didi.distill --run DIR --teacher
FILE`.

One iteration (arXiv 2509.25035, section 4): the student writes x in two steps (all masks -> z_tau -> x); x
and a teacher sample are corrupted; the discriminator learns to tell them apart; its log-odds reward the
student's two steps. Each ingredient has a flag that turns it off. The formulas are in `learn/policy.py`.

A run is a folder: `teacher-samples.pt`, `checkpoint.pt`, `log.csv`, and, every `--keep-every` iterations, the
averaged student of that moment, `student-N.safetensors`.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .backbone import Backbone, load_backbone
from .corpus import split_windows
from .diffusion import corrupt, in_batches, sample_plain
from .guidance import Discriminator, load_discriminator, weight_files
from .learn.distillation import DistillationBase, distillation_parser, run_distillation
from .learn.optim import Ema, load_checkpoint, save_checkpoint
from .learn.policy import Step, branch, label_loss, entropy, group_advantage, jeffreys
from .learn.policy import log_odds_reward, policy_gradient_loss, predict, rollout

TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "stories-mdlm" / "tokenizer.json"


class Distillation(DistillationBase):
    """DiDi-Instruct: a discriminator judges the student."""

    PARTS = ("student", "discriminator", "student_optimizer", "discriminator_optimizer")
    LOG_FIELDS = ["discriminator_loss", "accuracy", "reward", "jeffreys", "entropy", "gradient_norm"]
    WAIT = "discriminator_first"

    def __init__(self, teacher: Backbone, pool: Tensor, args: argparse.Namespace):
        """Start from `teacher`; `pool` [N, L] holds the texts to compare the student's with."""
        self.pool = pool
        self.teacher = teacher.requires_grad_(False).sharpen(args.start_temperature)
        super().__init__(teacher, args)
        self.discriminator = Discriminator(teacher, args.discriminator_blocks)
        self.discriminator_optimizer = self.adamw(self.discriminator, args.discriminator_lr)

    def begin_from(self, folder: Path) -> None:
        """Start from the student and discriminator of a model folder."""
        student, discriminator = weight_files(folder)
        self.student.load_state_dict(load_backbone(student).state_dict())
        self.discriminator.load_state_dict(load_discriminator(discriminator).state_dict())
        self.ema = Ema(self.student, self.args.ema)

    def update_discriminator(self, student_z: Tensor, teacher_z: Tensor) -> tuple[float, float]:
        """Do one step of the discriminator; return loss and accuracy."""
        mask_id, smoothing = self.student.config.mask_id, self.args.label_smoothing
        student_scores, teacher_scores = self.discriminator(torch.cat((student_z, teacher_z))).chunk(2)
        if self.args.canvas_odds:
            teacher_odds, student_odds = teacher_scores.sum(-1), student_scores.sum(-1)
        else:
            teacher_odds = teacher_scores[teacher_z == mask_id]
            student_odds = student_scores[student_z == mask_id]
        loss = (label_loss(teacher_odds, 1 - smoothing / 2) + label_loss(student_odds, smoothing / 2)) / 2
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()
        right = (teacher_odds > 0, student_odds <= 0)
        return float(loss.detach()), float(torch.cat(right).float().mean())

    def update_student(self, steps: list[Step], advantage: Tensor, weight: Tensor) -> dict[str, float]:
        """Do one policy-gradient step with its regularisers; return the figures for the log."""
        args = self.args
        log_prob = torch.stack([step.log_prob() for step in steps]).sum(0)
        divergence, uncertainty = torch.zeros(()), torch.zeros(())
        for step in steps:
            if args.jeffreys:
                with torch.no_grad():
                    log_q = predict(self.teacher, step.before)
                divergence = divergence + jeffreys(step.log_p, log_q, args.jeffreys_beta)
            if args.entropy:
                uncertainty = uncertainty + entropy(step.log_p)
        loss = policy_gradient_loss(log_prob, advantage, weight)
        loss = loss + args.jeffreys * divergence - args.entropy * uncertainty
        figures = {"jeffreys": float(divergence.detach()), "entropy": float(uncertainty.detach())}
        return {**figures, "gradient_norm": self.step_student(loss)}

    def autocast_iteration(self) -> dict[str, float]:
        args, mask_id = self.args, self.student.config.mask_id
        repeated = lambda v: v.repeat_interleave(args.group_size, dim=0)  # noqa: E731
        # A group shares its times and masks, so that its rewards differ only by the tokens.
        uniform, again = torch.rand(2, args.groups, self.pool.shape[1])
        tau, t = torch.rand(2, args.groups)
        if args.branch_steps:
            step_count = args.branch_steps[self.done % len(args.branch_steps)]
            step, ends = branch(self.student, step_count, args.group_size, uniform)
            # A step is judged at the time at which it ends. Text has no masks to judge, so it is corrupted a
            # little.
            text = ends < 0.5 / step_count
            t = torch.where(text, t * 2 / step_count, ends)
            steps, uniform = [step], torch.where(text[:, None], again, uniform)
        else:
            steps = rollout(self.student, None if args.one_step else repeated(tau), repeated(uniform))
            uniform, t = again, t.clamp(min=args.t_min)
        uniform, t = repeated(uniform), repeated(t)
        student_z = corrupt(steps[-1].after.flatten(0, 1), t, uniform, mask_id)
        teacher_z = corrupt(self.pool[torch.randint(len(self.pool), (len(t),))], t, uniform, mask_id)
        shown = torch.randperm(len(t))[: args.discriminator_rows]
        loss, accuracy = self.update_discriminator(student_z[shown], teacher_z[shown])
        self.done += 1
        if self.done <= args.discriminator_first:
            return {"discriminator_loss": loss, "accuracy": accuracy}
        with torch.no_grad():
            reward = log_odds_reward(self.discriminator(student_z), student_z, mask_id, args.reach)
        advantage = group_advantage(reward, args.group_size) if args.group_normalisation else reward
        weight = 1 / t if args.weight == "elbo" else torch.ones_like(t)
        log = self.update_student(steps, advantage, weight)
        return {"discriminator_loss": loss, "accuracy": accuracy, "reward": float(reward.mean()), **log}


def reference_texts(teacher: Backbone, args: argparse.Namespace) -> Tensor:
    """Return ids [pool, length]: the teacher's samples, kept in the run's folder, or training text."""
    if args.reference == "data":
        tokenizer = Tokenizer.from_file(str(args.tokenizer))
        return split_windows("train", tokenizer, args.pool, args.length, args.seed, args.corpus)
    path, mask_id = args.run / "teacher-samples.pt", teacher.config.mask_id
    if not path.exists():
        fill = lambda z: sample_plain(teacher, z, args.teacher_steps, mask_id)  # noqa: E731
        with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.bf16):
            save_checkpoint(in_batches(fill, args.pool, args.length, mask_id, "teacher"), path)
    return load_checkpoint(path)


def start(args: argparse.Namespace, teacher: Backbone) -> Distillation:
    """Return the distillation at iteration 0."""
    run = Distillation(teacher, reference_texts(teacher, args), args)
    if args.init:
        run.begin_from(args.init)
    return run


def distill(args: argparse.Namespace) -> None:
    run_distillation(args, partial(start, args))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = distillation_parser(__doc__)
    add = parser.add_argument
    add("--init", type=Path, metavar="FOLDER", help="start from this model folder's networks")
    add("--reference", choices=["teacher", "data"], default="teacher", help="what to compare samples with")
    add("--tokenizer", type=Path, default=TOKENIZER, help="tokenizer.json, for --reference data")
    add("--groups", type=int, default=4, help="groups of an iteration; each shares start, tau and t")
    add("--group-size", type=int, default=4, help="samples of a group")
    add("--pool", type=int, default=2048, help="reference texts to draw from")
    add("--teacher-steps", type=int, default=128, help="steps of a teacher sample")
    add("--discriminator-lr", type=float, default=1e-5, help="the discriminator's learning rate")
    add("--discriminator-blocks", type=int, default=4, help="its last blocks that are trained")
    add("--discriminator-first", type=int, default=0, help="iterations before the student begins to learn")
    add("--discriminator-rows", type=int, help="rows that it learns from in an iteration (default: all)")
    summed = "fit the sum of its scores to the log-odds of a canvas (default: each to those of its position)"
    add("--canvas-odds", action="store_true", help=summed)
    add("--label-smoothing", type=float, default=0.1, help="of the discriminator's labels")
    add("--t-min", type=float, default=1e-2, help="least corruption time")
    add("--weight", choices=["one", "elbo"], default="one", help="w(t): 1, or 1/t as in the ELBO")
    add("--reach", type=int, help="reward a token by positions at most this far away (default: by all)")
    add("--jeffreys", type=float, default=0.01, help="weight of the divergence; 0 disables it")
    add("--jeffreys-beta", type=float, default=0.5, help="share of KL(student || teacher) in that divergence")
    add("--entropy", type=float, default=5e-4, help="weight of the entropy bonus; 0 disables it")
    add("--one-step", action="store_true", help="generate in one step instead of two (an ablation)")
    branches = "generate in this many steps instead of two; branch at one of them and judge its end"
    add("--branch-steps", type=int, nargs="+", metavar="STEPS", help=branches)
    either = argparse.BooleanOptionalAction
    add("--group-normalisation", action=either, default=True, help="normalise rewards in groups")
    args = parser.parse_args(argv)
    if args.group_size == 1 and args.group_normalisation:
        parser.error("--group-size 1 cannot be normalised: pass 2 or more, or --no-group-normalisation")
    return args


if __name__ == "__main__":
    distill(parse_args())
