"""What both distillations share: the student, its average, checkpoints, the loop and its flags."""

import argparse
import copy
import csv
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..backbone import Backbone, load_backbone, save_backbone
from ..command import Deadline, add_bf16_flag, add_compile_flag, add_corpus_flag, add_device_flag
from ..command import add_minutes_flag, command_parser, compile_blocks, keep_freed_memory, stop_on_signal, use_device
from .optim import Ema, load_checkpoint, save_checkpoint


def cosine_rate(iteration: int, iterations: int, warmup: int, peak: float, least: float) -> float:
    """Return the learning rate: linear warm-up to `peak`, then half a cosine down to `least`."""
    if iteration < warmup:
        return peak * (iteration + 1) / warmup
    done = (iteration - warmup) / max(1, iterations - warmup)
    return least + 0.5 * (peak - least) * (1 + math.cos(math.pi * done))


class DistillationBase(ABC):
    """The student, its optimiser and its average. Subclasses add the network that judges its samples."""

    PARTS: tuple[str, ...]  # attributes with a state that a checkpoint holds
    LOG_FIELDS: list[str]
    WAIT: str  # argument: iterations before the student begins to learn

    def __init__(self, student: Backbone, args: argparse.Namespace):
        self.args = args
        self.student = copy.deepcopy(student).requires_grad_(True)
        self.student_optimizer = self.adamw(self.student, args.lr)
        self.ema = Ema(self.student, args.ema)
        self.done = 0

    @staticmethod
    def adamw(model: nn.Module, lr: float) -> torch.optim.AdamW:
        """Return the published optimiser of what is trainable in `model`."""
        trainable = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trainable, lr=lr, betas=(0.9, 0.999), weight_decay=0)

    @property
    def waits(self) -> int:
        """Iterations before the student begins to learn."""
        return getattr(self.args, self.WAIT)

    def state(self) -> dict:
        config = self.student.config.to_dict()
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        return {"config": config, "iteration": self.done, "ema": self.ema.weights, **parts}

    def load(self, state: dict) -> None:
        self.done = state["iteration"]
        self.ema.weights = state["ema"]
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])

    def averaged(self) -> Backbone:
        """Return the student that is served: the average of the weights."""
        student = Backbone(self.student.config)
        student.load_state_dict(self.ema.weights)
        return student.eval()

    def step_student(self, loss: Tensor) -> float:
        """Do one step of the student down `loss`, and return the norm of its gradient."""
        args = self.args
        learned, planned = self.done - 1 - self.waits, args.iterations - self.waits
        for group in self.student_optimizer.param_groups:
            group["lr"] = cosine_rate(learned, planned, args.warmup, args.lr, args.least_lr)
        self.student_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.student_optimizer.step()
        self.ema.update(self.student, learned)
        return float(norm)

    def iteration(self) -> dict[str, float]:
        """Do one iteration, a function of the seed and its number, so that a resumed run repeats it."""
        torch.manual_seed(self.args.seed * 1_000_003 + self.done)
        with torch.autocast(self.args.device, dtype=torch.bfloat16, enabled=self.args.bf16):
            return self.autocast_iteration()

    @abstractmethod
    def autocast_iteration(self) -> dict[str, float]:
        """Do one iteration, count it in `done`, and return the figures for the log."""


def run_distillation(args: argparse.Namespace, start: Callable[[Backbone], DistillationBase]) -> None:
    """Distil in the folder `args.run`; `start` returns the state at iteration 0 for a teacher."""
    torch.set_num_threads(args.threads)
    use_device(args.device)
    keep_freed_memory()
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint = args.run / "checkpoint.pt"
    if checkpoint.exists() and not args.resume:
        sys.exit(f"{checkpoint} exists: pass --resume to continue it, or name another --run")
    torch.manual_seed(args.seed)
    run = start(load_backbone(args.teacher))
    if args.resume:
        run.load(load_checkpoint(checkpoint))
    if args.compile:
        for network in filter(lambda part: isinstance(part, nn.Module), vars(run).values()):
            compile_blocks(network)
    stop, deadline = stop_on_signal(), Deadline(args.minutes)
    started, first = time.time(), run.done
    with (args.run / "log.csv").open("a", newline="") as file:
        writer = csv.DictWriter(file, ["iteration", *run.LOG_FIELDS])
        if file.tell() == 0:
            writer.writeheader()
        while run.done < args.iterations and not stop:
            learned = run.done - run.waits  # an iteration costs more from 0 on
            args.iterations = deadline.plan(learned, args.iterations - run.waits) + run.waits
            log = run.iteration()
            writer.writerow({"iteration": run.done, **{k: round(v, 5) for k, v in log.items()}})
            rate = (run.done - first) / (time.time() - started)
            left = (args.iterations - run.done) / rate / 60
            figures = "  ".join(f"{k} {v:.3f}" for k, v in log.items())
            progress = f"iteration {run.done}/{args.iterations}  {figures}  {left:.0f} min left "
            print(f"\r{progress}", end="", flush=True)
            if run.done % args.save_every == 0:
                file.flush()
                save_checkpoint(run.state(), checkpoint)
            if run.done % args.keep_every == 0:
                save_backbone(run.averaged(), args.run / f"student-{run.done:06}.safetensors")
    print()
    save_checkpoint(run.state(), checkpoint)


def distillation_parser(doc: str, **defaults: float) -> argparse.ArgumentParser:
    """Return a parser with the flags of both distillations, with other `defaults` for some."""
    parser = command_parser(doc)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of this run")
    add("--teacher", type=Path, required=True, help="the teacher's weights: checkpoint.pt or .safetensors")
    add("--resume", action="store_true", help="continue from the run's checkpoint")
    add_minutes_flag(parser)
    add("--iterations", type=int, default=10_000, help="iterations in all, resumed ones included")
    add("--start-temperature", type=float, default=1.0, help="sharpen the student at the start")
    add("--length", type=int, default=128, help="tokens of a sample")
    add("--lr", type=float, default=1e-5, help="the student's highest learning rate")
    add("--least-lr", type=float, default=1e-6, help="the student's last learning rate")
    add("--warmup", type=int, default=1000, help="iterations over which the student's rate rises")
    add("--ema", type=float, default=0.999, help="decay of the average of the student's weights")
    add("--save-every", type=int, default=100, help="iterations between checkpoints")
    add("--keep-every", type=int, default=500, help="iterations between the students that are kept")
    add_corpus_flag(parser)
    add_device_flag(parser)
    add_bf16_flag(parser, "use bfloat16 matrix products")
    add_compile_flag(parser)
    add("--seed", type=int, default=0, help="of the iterations")
    add("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.set_defaults(**defaults)
    return parser
