"""DiDi-Instruct: distils the teacher into a few-step student (arXiv 2509.25035, section 4).

    python -m didi.distill --run DIR --teacher CHECKPOINT --iterations N

One iteration: the student writes x in two steps (all masks -> z_tau -> x), x and a teacher sample are
corrupted, the discriminator learns to tell them apart, and its log-odds reward the student's two steps.
Every ingredient can be switched off. The formulas are in `policy`.

A run is a folder: `teacher-samples.pt`, `checkpoint.pt`, `log.csv`, and, every `--keep-every` iterations, the
averaged student of that moment, `student-N.safetensors`.
"""

import argparse
import copy
import csv
import math
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from .backbone import Backbone
from .corpus import SOURCES, load_stream, random_windows
from .diffusion import corrupt, in_batches, sample_plain
from .discriminator import Discriminator
from .export import load_backbone, load_discriminator, save_weights, weight_files
from .policy import (
    Step,
    branch,
    discriminator_loss,
    entropy,
    group_advantage,
    jeffreys,
    log_odds_reward,
    policy_gradient_loss,
    predict,
    rollout,
)
from .precision import add_bf16_flag
from .train import Ema


def cosine_rate(iteration: int, iterations: int, warmup: int, peak: float, least: float) -> float:
    """Learning rate: linear warm-up to `peak`, then half a cosine down to `least`."""
    if iteration < warmup:
        return peak * (iteration + 1) / warmup
    return least + 0.5 * (peak - least) * (1 + math.cos(math.pi * (iteration - warmup) / max(1, iterations - warmup)))


TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "stories-mdlm" / "tokenizer.json"

LOG_FIELDS = ["iteration", "discriminator_loss", "accuracy", "reward", "jeffreys", "entropy", "gradient_norm"]


class Distillation:
    """Student, discriminator, their optimisers and average; one `iteration` at a time."""

    def __init__(self, teacher: Backbone, pool: Tensor, args: argparse.Namespace):
        self.args, self.pool = args, pool
        self.teacher = teacher.requires_grad_(False).sharpen(args.start_temperature)
        self.student = copy.deepcopy(teacher).requires_grad_(True)
        self.discriminator = Discriminator(teacher, args.discriminator_blocks)
        self.student_optimizer = torch.optim.AdamW(self.student.parameters(), lr=args.lr, betas=(0.9, 0.999), weight_decay=0)
        trainable = [p for p in self.discriminator.parameters() if p.requires_grad]
        self.discriminator_optimizer = torch.optim.AdamW(
            trainable, lr=args.discriminator_lr, betas=(0.9, 0.999), weight_decay=0
        )
        self.ema = Ema(self.student, args.ema)
        self.done = 0

    def state(self) -> dict:
        return {
            "config": self.student.config.to_dict(),
            "iteration": self.done,
            "student": self.student.state_dict(),
            "ema": self.ema.weights,
            "discriminator": self.discriminator.state_dict(),
            "student_optimizer": self.student_optimizer.state_dict(),
            "discriminator_optimizer": self.discriminator_optimizer.state_dict(),
        }

    def load(self, state: dict) -> None:
        self.done = state["iteration"]
        self.ema.weights = state["ema"]
        for name in ("student", "discriminator", "student_optimizer", "discriminator_optimizer"):
            getattr(self, name).load_state_dict(state[name])

    def begin_from(self, folder: Path) -> None:
        """Takes up the student and discriminator of a model folder."""
        student, discriminator = weight_files(folder)
        self.student.load_state_dict(load_backbone(student).state_dict())
        self.discriminator.load_state_dict(load_discriminator(discriminator).state_dict())
        self.ema = Ema(self.student, self.args.ema)

    def averaged(self) -> Backbone:
        """The student that is served: the moving average."""
        student = Backbone(self.student.config)
        student.load_state_dict(self.ema.weights)
        return student.eval()

    def update_discriminator(self, student_z: Tensor, teacher_z: Tensor) -> tuple[float, float]:
        """One step of telling the two apart; returns loss and accuracy at masked positions."""
        mask_id, smoothing = self.student.config.mask_id, self.args.label_smoothing
        student_scores, teacher_scores = self.discriminator(torch.cat((student_z, teacher_z))).chunk(2)
        loss = discriminator_loss(teacher_scores, teacher_z, 1 - smoothing / 2, mask_id) / 2
        loss = loss + discriminator_loss(student_scores, student_z, smoothing / 2, mask_id) / 2
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()
        right = torch.cat((teacher_scores[teacher_z == mask_id] > 0, student_scores[student_z == mask_id] <= 0))
        return float(loss.detach()), float(right.float().mean())

    def update_student(self, steps: list[Step], advantage: Tensor, weight: Tensor) -> dict[str, float]:
        """One policy-gradient step with its regularisers; returns what the log keeps."""
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
        learnt = self.done - 1 - args.discriminator_first
        for group in self.student_optimizer.param_groups:
            group["lr"] = cosine_rate(learnt, args.iterations - args.discriminator_first, args.warmup, args.lr, args.least_lr)
        self.student_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.student_optimizer.step()
        self.ema.update(self.student, learnt)
        figures = {"jeffreys": divergence, "entropy": uncertainty, "gradient_norm": norm}
        return {name: float(value.detach()) for name, value in figures.items()}

    def iteration(self) -> dict[str, float]:
        """One iteration; a function of the seed and the iteration's number, so that a resumed run repeats it."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.bf16):
            return self.autocast_iteration()

    def autocast_iteration(self) -> dict[str, float]:
        args, mask_id = self.args, self.student.config.mask_id
        torch.manual_seed(args.seed * 1_000_003 + self.done)
        repeated = lambda v: v.repeat_interleave(args.group_size, dim=0)  # noqa: E731
        # A group shares its times and masks, so that its rewards differ by what was written alone.
        uniform, again = torch.rand(2, args.groups, self.pool.shape[1])
        tau, t = torch.rand(2, args.groups)
        if args.branch_steps:
            step_count = args.branch_steps[self.done % len(args.branch_steps)]
            step, ends = branch(self.student, step_count, args.group_size, uniform)
            # Where the step ends is where it is judged; but text has no masks to be judged at, and is corrupted a little.
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


def save(state: dict, path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def teacher_samples(teacher: Backbone, args: argparse.Namespace) -> Tensor:
    """What the student is to be indistinguishable from: [pool, length] ids of many-step samples."""
    mask_id = teacher.config.mask_id
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
        return in_batches(
            lambda z: sample_plain(teacher, z, args.teacher_steps, mask_id), args.pool, args.length, mask_id, "teacher"
        )


def training_windows(args: argparse.Namespace) -> Tensor:
    """Text of the training split in the teacher samples' place: [pool, length] ids."""
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    streams = {name: load_stream(name, "train", tokenizer) for name in SOURCES}
    return torch.from_numpy(random_windows(streams, args.pool, args.length, np.random.default_rng(args.seed)))


def distill(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint, pool_path = args.run / "checkpoint.pt", args.run / "teacher-samples.pt"
    if checkpoint.exists() and not args.resume:
        sys.exit(f"{checkpoint} exists: pass --resume to continue it, or name another --run")
    torch.manual_seed(args.seed)
    teacher = load_backbone(args.teacher)
    if args.reference == "data":
        pool = training_windows(args)
    else:
        if not pool_path.exists():
            save(teacher_samples(teacher, args), pool_path)
        pool = torch.load(pool_path, weights_only=True)
    run = Distillation(teacher, pool, args)
    if args.init:
        run.begin_from(args.init)
    if args.resume:
        run.load(torch.load(checkpoint, weights_only=True))
    stop: list[bool] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.append(True))
    started, first = time.time(), run.done
    with (args.run / "log.csv").open("a", newline="") as file:
        writer = csv.DictWriter(file, LOG_FIELDS)
        if file.tell() == 0:
            writer.writeheader()
        while run.done < args.iterations and not stop:
            log = run.iteration()
            writer.writerow({"iteration": run.done, **{k: round(v, 5) for k, v in log.items()}})
            rate = (run.done - first) / (time.time() - started)
            left = (args.iterations - run.done) / rate / 60
            figures = "  ".join(f"{k} {v:.3f}" for k, v in log.items())
            print(f"\riteration {run.done}/{args.iterations}  {figures}  {left:.0f} min left ", end="", flush=True)
            if run.done % args.save_every == 0:
                file.flush()
                save(run.state(), checkpoint)
            if run.done % args.keep_every == 0:
                save_weights(run.averaged(), args.run / f"student-{run.done:06}.safetensors")
    print()
    save(run.state(), checkpoint)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of this run")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's weights: checkpoint.pt of its training run, or .safetensors")
    parser.add_argument("--resume", action="store_true", help="continue from the run's checkpoint")
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument(
        "--init", type=Path, metavar="FOLDER", help="start from this model folder's student and discriminator, not the teacher"
    )
    parser.add_argument(
        "--reference", choices=["teacher", "data"], default="teacher", help="what the discriminator holds the student against"
    )
    parser.add_argument(
        "--start-temperature", type=float, default=1.0, help="the student starts as the teacher sharpened to this temperature"
    )
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="tokenizer.json, for --reference data")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sample")
    parser.add_argument("--groups", type=int, default=4, help="groups an iteration; each shares start, tau and t")
    parser.add_argument("--group-size", type=int, default=4)
    parser.add_argument("--pool", type=int, default=2048, help="samples of the reference to draw from")
    parser.add_argument("--teacher-steps", type=int, default=128, help="steps of a teacher sample")
    parser.add_argument("--lr", type=float, default=1e-5, help="the student's highest learning rate")
    parser.add_argument("--least-lr", type=float, default=1e-6, help="where its learning rate ends")
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--discriminator-lr", type=float, default=1e-5)
    parser.add_argument("--discriminator-blocks", type=int, default=4, help="last blocks that are trained")
    parser.add_argument("--discriminator-first", type=int, default=0, help="iterations before the student begins to learn")
    parser.add_argument("--discriminator-rows", type=int, help="rows of an iteration that it learns from (default: all)")
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--t-min", type=float, default=1e-2, help="least corruption time")
    parser.add_argument("--weight", choices=["one", "elbo"], default="one", help="w(t): 1, or 1/t as in the ELBO")
    parser.add_argument(
        "--reach", type=int, help="tokens answer for the rewards of positions no further away than this (default: of all)"
    )
    parser.add_argument("--jeffreys", type=float, default=0.01, help="weight of the divergence to the teacher; 0: off")
    parser.add_argument("--jeffreys-beta", type=float, default=0.5)
    parser.add_argument("--entropy", type=float, default=5e-4, help="weight of the entropy bonus; 0: off")
    parser.add_argument("--one-step", action="store_true", help="ablation: generate in one step")
    parser.add_argument(
        "--branch-steps",
        type=int,
        nargs="+",
        metavar="STEPS",
        help="instead of generating in two steps, branch generations of this many steps at one of them, judged where it ends",
    )
    parser.add_argument("--group-normalisation", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--save-every", type=int, default=100, help="iterations between checkpoints")
    parser.add_argument("--keep-every", type=int, default=500, help="iterations between the students that are kept")
    add_bf16_flag(parser, "bfloat16 matrix products")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(argv)
    if args.group_size == 1 and args.group_normalisation:
        parser.error("--group-size 1 has nothing to normalise by: pass 2 or more, or --no-group-normalisation")
    return args


if __name__ == "__main__":
    distill(parse_args())
