"""Distil the teacher into a few-step student by DiDi-Instruct: `python -m didi.distill --run DIR --teacher
FILE`.

One iteration (arXiv 2509.25035, section 4): the student writes x in two steps (all masks -> z_tau -> x); x
and a teacher sample are corrupted; the discriminator learns to tell them apart; its log-odds reward the
student's two steps. Each ingredient has a flag that turns it off. The formulas are in `learn/policy.py`.

A run is a folder: `teacher-samples.pt`, `checkpoint.pt`, `log.csv`, and, every `--keep-every` iterations, the
averaged student of that moment, `student-N.safetensors`.
"""

import argparse
import copy
import csv
import math
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from .backbone import Backbone, load_backbone, save_backbone
from .command import Deadline, add_bf16_flag, add_corpus_flag, add_device_flag, add_minutes_flag
from .command import command_parser, stop_on_signal, use_device
from .corpus import split_windows
from .diffusion import corrupt, in_batches, sample_plain
from .guidance import Discriminator, load_discriminator, weight_files
from .learn.optim import Ema, load_checkpoint, save_checkpoint
from .learn.policy import Step, branch, label_loss, entropy, group_advantage, jeffreys
from .learn.policy import log_odds_reward, policy_gradient_loss, predict, rollout

TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "stories-mdlm" / "tokenizer.json"
LOG_FIELDS = ["iteration", "discriminator_loss", "accuracy", "reward", "jeffreys", "entropy", "gradient_norm"]


def cosine_rate(iteration: int, iterations: int, warmup: int, peak: float, least: float) -> float:
    """Return the learning rate: linear warm-up to `peak`, then half a cosine down to `least`."""
    if iteration < warmup:
        return peak * (iteration + 1) / warmup
    done = (iteration - warmup) / max(1, iterations - warmup)
    return least + 0.5 * (peak - least) * (1 + math.cos(math.pi * done))


class Distillation:
    """Student, discriminator, their optimisers and the average; `iteration` does one iteration."""

    PARTS = ("student", "discriminator", "student_optimizer", "discriminator_optimizer")

    def __init__(self, teacher: Backbone, pool: Tensor, args: argparse.Namespace):
        """Start from `teacher`; `pool` [N, L] holds the texts to compare the student's with."""
        self.args, self.pool = args, pool
        self.teacher = teacher.requires_grad_(False).sharpen(args.start_temperature)
        self.student = copy.deepcopy(teacher).requires_grad_(True)
        self.discriminator = Discriminator(teacher, args.discriminator_blocks)
        trainable = [p for p in self.discriminator.parameters() if p.requires_grad]
        adamw = {"betas": (0.9, 0.999), "weight_decay": 0}
        self.student_optimizer = torch.optim.AdamW(self.student.parameters(), lr=args.lr, **adamw)
        self.discriminator_optimizer = torch.optim.AdamW(trainable, lr=args.discriminator_lr, **adamw)
        self.ema = Ema(self.student, args.ema)
        self.done = 0

    def state(self) -> dict:
        config = self.student.config.to_dict()
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        return {"config": config, "iteration": self.done, "ema": self.ema.weights, **parts}

    def load(self, state: dict) -> None:
        self.done = state["iteration"]
        self.ema.weights = state["ema"]
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])

    def begin_from(self, folder: Path) -> None:
        """Start from the student and discriminator of a model folder."""
        student, discriminator = weight_files(folder)
        self.student.load_state_dict(load_backbone(student).state_dict())
        self.discriminator.load_state_dict(load_discriminator(discriminator).state_dict())
        self.ema = Ema(self.student, self.args.ema)

    def averaged(self) -> Backbone:
        """Return the student that is served: the average of the weights."""
        student = Backbone(self.student.config)
        student.load_state_dict(self.ema.weights)
        return student.eval()

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
        first = args.discriminator_first
        learned, planned = self.done - 1 - first, args.iterations - first
        for group in self.student_optimizer.param_groups:
            group["lr"] = cosine_rate(learned, planned, args.warmup, args.lr, args.least_lr)
        self.student_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.student_optimizer.step()
        self.ema.update(self.student, learned)
        figures = {"jeffreys": divergence, "entropy": uncertainty, "gradient_norm": norm}
        return {name: float(value.detach()) for name, value in figures.items()}

    def iteration(self) -> dict[str, float]:
        """Do one iteration, a function of the seed and its number, so that a resumed run repeats it."""
        with torch.autocast(self.args.device, dtype=torch.bfloat16, enabled=self.args.bf16):
            return self.autocast_iteration()

    def autocast_iteration(self) -> dict[str, float]:
        args, mask_id = self.args, self.student.config.mask_id
        torch.manual_seed(args.seed * 1_000_003 + self.done)
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


def distill(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    use_device(args.device)
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint = args.run / "checkpoint.pt"
    if checkpoint.exists() and not args.resume:
        sys.exit(f"{checkpoint} exists: pass --resume to continue it, or name another --run")
    torch.manual_seed(args.seed)
    teacher = load_backbone(args.teacher)
    run = Distillation(teacher, reference_texts(teacher, args), args)
    if args.init:
        run.begin_from(args.init)
    if args.resume:
        run.load(load_checkpoint(checkpoint))
    stop, deadline = stop_on_signal(), Deadline(args.minutes)
    started, first = time.time(), run.done
    with (args.run / "log.csv").open("a", newline="") as file:
        writer = csv.DictWriter(file, LOG_FIELDS)
        if file.tell() == 0:
            writer.writeheader()
        while run.done < args.iterations and not stop:
            learned = run.done - args.discriminator_first  # an iteration costs more from 0 on
            args.iterations = deadline.plan(learned, args.iterations - args.discriminator_first)
            args.iterations += args.discriminator_first
            log = run.iteration()
            writer.writerow({"iteration": run.done, **{k: round(v, 5) for k, v in log.items()}})
            rate = (run.done - first) / (time.time() - started)
            left = (args.iterations - run.done) / rate / 60
            figures = "  ".join(f"{k} {v:.3f}" for k, v in log.items())
            print(
                f"\riteration {run.done}/{args.iterations}  {figures}  {left:.0f} min left ",
                end="",
                flush=True,
            )
            if run.done % args.save_every == 0:
                file.flush()
                save_checkpoint(run.state(), checkpoint)
            if run.done % args.keep_every == 0:
                save_backbone(run.averaged(), args.run / f"student-{run.done:06}.safetensors")
    print()
    save_checkpoint(run.state(), checkpoint)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of this run")
    add("--teacher", type=Path, required=True, help="the teacher's weights: checkpoint.pt or .safetensors")
    add("--resume", action="store_true", help="continue from the run's checkpoint")
    add_minutes_flag(parser)
    add("--iterations", type=int, default=10_000, help="iterations in all, resumed ones included")
    add("--init", type=Path, metavar="FOLDER", help="start from this model folder's networks")
    add("--reference", choices=["teacher", "data"], default="teacher", help="what to compare samples with")
    add("--start-temperature", type=float, default=1.0, help="sharpen the teacher at the start")
    add("--tokenizer", type=Path, default=TOKENIZER, help="tokenizer.json, for --reference data")
    add("--length", type=int, default=128, help="tokens of a sample")
    add("--groups", type=int, default=4, help="groups of an iteration; each shares start, tau and t")
    add("--group-size", type=int, default=4, help="samples of a group")
    add("--pool", type=int, default=2048, help="reference texts to draw from")
    add("--teacher-steps", type=int, default=128, help="steps of a teacher sample")
    add("--lr", type=float, default=1e-5, help="the student's highest learning rate")
    add("--least-lr", type=float, default=1e-6, help="the student's last learning rate")
    add("--warmup", type=int, default=1000, help="iterations over which the student's rate rises")
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
    add("--ema", type=float, default=0.999, help="decay of the average of the student's weights")
    add("--save-every", type=int, default=100, help="iterations between checkpoints")
    add("--keep-every", type=int, default=500, help="iterations between the students that are kept")
    add_corpus_flag(parser)
    add_device_flag(parser)
    add_bf16_flag(parser, "use bfloat16 matrix products")
    add("--seed", type=int, default=0, help="of the iterations")
    add("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    args = parser.parse_args(argv)
    if args.group_size == 1 and args.group_normalisation:
        parser.error("--group-size 1 cannot be normalised: pass 2 or more, or --no-group-normalisation")
    return args


if __name__ == "__main__":
    distill(parse_args())
