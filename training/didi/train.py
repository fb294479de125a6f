"""Trains a language model: `python -m didi.train --run DIR --tokenizer FILE --steps N`.

The masked-diffusion denoiser by default; `--objective causal` trains an autoregressive model of the
same sizes. Losses are in nats a token: the NELBO of the one, the negative log-likelihood of the other.

A run is a folder: `checkpoint.pt` (everything a resume needs), `stable.pt` (the state where the
learning rate starts to fall: the place to continue a longer run from), `best.pt` (the lowest validation
loss so far), `log.csv`. The learning
rate warms up, stays, and falls to zero over the last part; `--resume` continues to the same curve
bit for bit, because batches and noise are functions of the step.
"""

import argparse
import csv
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from .backbone import BackboneConfig
from .corpus import SEPARATOR, SOURCES, Batches, Stream, evaluation_windows, load_stream
from .export import load_backbone
from .muon import Muon
from .objectives import OBJECTIVES, Objective
from .precision import add_bf16_flag

LOG_FIELDS = ["step", "tokens", "cpu_seconds", "train_nats", "validation_nats"]
LOG_FIELDS += [f"validation_{name[0]}" for name in sorted(SOURCES)]


def learning_rate(step: int, steps: int, warmup: int, cooldown: float) -> float:
    """Factor in [0, 1]: linear warm-up, constant, linear fall over the last `cooldown` share of the steps."""
    falling = max(1, int(steps * cooldown))
    return min(1.0, (step + 1) / warmup, (steps - step) / falling)


def build_optimizers(model: nn.Module, lr: float, muon_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest (embeddings, norms, adaLN, output)."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inner = name.startswith("blocks.") and parameter.ndim == 2 and "adaLN" not in name
        (matrices if inner else others).append(parameter)
    adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    return [Muon(matrices, lr=muon_lr, weight_decay=0.01), adamw]


class Ema:
    """Exponential moving average of the weights; what is evaluated and served."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            self.weights[key].lerp_(value, 1 - decay)


@torch.no_grad()
def evaluate(
    objective: Objective, model: nn.Module, streams: dict[str, Stream], per_source: int | None, batch: int = 32
) -> dict[str, float]:
    """Held-out nats a token for each source; noise is fixed, so figures compare across steps."""
    results = {}
    for name, stream in streams.items():
        generator = torch.Generator().manual_seed(1)
        windows = torch.from_numpy(evaluation_windows(stream, model.config.context, per_source))
        total = sum(float(objective.held_out(model, x, generator).sum()) for x in windows.split(batch))
        results[name] = total / windows.numel()
    return results


def weighted(by_source: dict[str, float]) -> float:
    """Mean of per-source figures, weighed as the training windows are."""
    return sum(SOURCES[name] * value for name, value in by_source.items())


class Run:
    """One training run: model, optimisers, average, and their checkpoint."""

    def __init__(self, args: argparse.Namespace, tokenizer: Tokenizer):
        torch.manual_seed(args.seed)
        self.args = args
        self.config = BackboneConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden=args.hidden,
            blocks=args.blocks,
            heads=args.heads,
            cond=args.cond,
            context=args.context,
        )
        self.objective = OBJECTIVES[args.objective](tokenizer.token_to_id(SEPARATOR))
        self.model = self.objective.build(self.config)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = args.dropout
        self.optimizers = build_optimizers(self.model, args.lr, args.muon_lr)
        self.base_rates = [args.muon_lr, args.lr]
        self.ema = Ema(self.model, args.ema)
        self.step, self.tokens, self.cpu_seconds = 0, 0, 0.0
        self.averaged = self.objective.build(self.config)

    def save(self, path: Path) -> None:
        state = {
            "config": self.config.to_dict(),
            "step": self.step,
            "tokens": self.tokens,
            "cpu_seconds": self.cpu_seconds,
            "model": self.model.state_dict(),
            "ema": self.ema.weights,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Raises ValueError if the checkpoint was made with other sizes."""
        state = torch.load(path, weights_only=True)
        if state["config"] != self.config.to_dict():
            raise ValueError(f"{path} holds {state['config']}, not {self.config.to_dict()}")
        self.model.load_state_dict(state["model"])
        self.ema.weights = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.step, self.tokens, self.cpu_seconds = state["step"], state["tokens"], state["cpu_seconds"]

    def start_from(self, other: nn.Module) -> None:
        """Takes over another model's weights. Raises RuntimeError if they do not fit."""
        self.model.load_state_dict(other.state_dict())
        self.ema = Ema(self.model, self.args.ema)

    def grow_from(self, other: nn.Module) -> None:
        """Take over a model with half the blocks; its function is unchanged at first.

        Every block is followed by a copy of itself whose gates are zero, so that the copy adds nothing until its
        gates are trained. Raises ValueError if this model does not have twice as many blocks.
        """
        blocks = len(other.blocks)
        if len(self.model.blocks) != 2 * blocks:
            raise ValueError(f"--grow: the weights have {blocks} blocks, so --blocks must be {2 * blocks}")
        state = other.state_dict()
        grown = {key: value for key, value in state.items() if not key.startswith("blocks.")}
        gates = torch.zeros(6, self.config.hidden, dtype=torch.bool)
        gates[[2, 5]] = True  # of attention and of the MLP, in the order of Block.forward
        for key in (key for key in state if key.startswith("blocks.")):
            _, index, name = key.split(".", 2)
            copy = state[key].clone()
            if name.startswith("adaLN_modulation."):
                copy[gates.flatten()] = 0
            grown[f"blocks.{2 * int(index)}.{name}"] = state[key]
            grown[f"blocks.{2 * int(index) + 1}.{name}"] = copy
        self.model.load_state_dict(grown)
        self.ema = Ema(self.model, self.args.ema)

    def train_step(self, batches: Batches) -> float:
        """One update; returns the loss in nats a token."""
        args = self.args
        factor = learning_rate(self.step, args.steps, args.warmup, args.cooldown)
        for optimizer, rate in zip(self.optimizers, self.base_rates):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        rows, rng = batches.at(self.step)
        x = torch.from_numpy(rows)
        torch.manual_seed(args.seed * 1_000_003 + self.step)  # of dropout
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            loss = self.objective.train_loss(self.model, x, rng)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.model, self.step)
        self.step += 1
        self.tokens += x.numel()
        return float(loss.detach())

    def validate(self, streams: dict[str, Stream], per_source: int | None) -> dict[str, float]:
        self.averaged.load_state_dict(self.ema.weights)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.bf16):
            return evaluate(self.objective, self.averaged.eval(), streams, per_source)


def open_log(path: Path, resumed_at: int) -> tuple[TextIO, csv.DictWriter, float]:
    """The log, cut back to the step that is resumed from, and the lowest validation loss in it."""
    kept = []
    if resumed_at and path.exists():
        with path.open() as file:
            kept = [row for row in csv.DictReader(file) if int(row["step"]) <= resumed_at]
    file = path.open("w", newline="")
    writer = csv.DictWriter(file, LOG_FIELDS)
    writer.writeheader()
    writer.writerows(kept)
    file.flush()
    return file, writer, min((float(row["validation_nats"]) for row in kept), default=float("inf"))


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    run = Run(args, tokenizer)
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint = args.run / "checkpoint.pt"
    if args.resume:
        run.load(args.resume_from or checkpoint)
    elif args.init:
        other = load_backbone(args.init)
        run.grow_from(other) if args.grow else run.start_from(other)
    if not args.resume and checkpoint.exists():
        sys.exit(f"{checkpoint} exists: pass --resume to continue it, or name another --run")
    streams = {name: load_stream(name, "train", tokenizer) for name in SOURCES}
    held_out = {name: load_stream(name, "validation", tokenizer) for name in SOURCES}
    batches = Batches(streams, args.context, args.batch_tokens, args.seed)
    print(f"{sum(p.numel() for p in run.model.parameters()):,} parameters, {sum(len(s.ids) for s in streams.values()):,} training tokens")

    stop = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.append(True))
    file, log, best = open_log(args.run / "log.csv", run.step)
    stable_at = args.steps - max(1, int(args.steps * args.cooldown))
    started, cpu_started, tokens_started = time.time(), time.process_time() - run.cpu_seconds, run.tokens
    losses: list[float] = []
    while run.step < args.steps and not stop:
        if run.step == stable_at:
            run.save(args.run / "stable.pt")
        losses.append(run.train_step(batches))
        run.cpu_seconds = time.process_time() - cpu_started
        rate = (run.tokens - tokens_started) / (time.time() - started)
        if sys.stdout.isatty() or run.step % 20 == 0:
            left = (args.steps - run.step) * args.batch_tokens / rate / 60
            mean = sum(losses[-50:]) / len(losses[-50:])
            progress = f"step {run.step}/{args.steps}  {mean:.3f} nats/token  {rate:,.0f} tokens/s  {left:.0f} min left "
            print(f"\r{progress}", end="", flush=True)
        if run.step % args.validate_every == 0 or run.step == args.steps:
            by_source = run.validate(held_out, 64)
            log.writerow(
                {
                    "step": run.step,
                    "tokens": run.tokens,
                    "cpu_seconds": round(run.cpu_seconds),
                    "train_nats": round(sum(losses) / len(losses), 4),
                    "validation_nats": round(weighted(by_source), 4),
                    **{f"validation_{name[0]}": round(value, 4) for name, value in by_source.items()},
                }
            )
            file.flush()
            losses = []
            run.save(checkpoint)
            if weighted(by_source) < best:
                best = weighted(by_source)
                run.save(args.run / "best.pt")
            detail = ", ".join(f"{name[0]}: {value:.3f}" for name, value in by_source.items())
            print(
                f"\rstep {run.step}/{args.steps}  validation {weighted(by_source):.4f} ({detail}) nats/token  "
                f"{rate:,.0f} tokens/s  {run.cpu_seconds / 3600:.2f} CPU h",
                flush=True,
            )
    run.save(checkpoint)
    file.close()
    if stop:
        print(f"\nstopped at step {run.step}; continue with --resume")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of this run")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--objective", choices=list(OBJECTIVES), default="masked-diffusion")
    parser.add_argument("--steps", type=int, default=4000, help="updates in all, resumed ones included")
    parser.add_argument("--resume", action="store_true", help="continue from the run's checkpoint")
    parser.add_argument("--resume-from", type=Path, help="with --resume: another checkpoint, such as stable.pt")
    parser.add_argument("--init", type=Path, help="start from these weights: a checkpoint.pt or weights.safetensors")
    parser.add_argument("--grow", action="store_true", help="with --init: the weights have half as many blocks")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--cond", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3, help="AdamW's, for embeddings, norms and output")
    parser.add_argument("--muon-lr", type=float, default=3e-3, help="Muon's, for the matrices of the blocks")
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--cooldown", type=float, default=0.25, help="share of the steps over which the rate falls")
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--dropout", type=float, default=0.0, help="of what attention and MLP add to the residual stream")
    parser.add_argument("--validate-every", type=int, default=200, help="steps between validations and checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    add_bf16_flag(parser, "bfloat16 matrix products")
    return parser.parse_args()


if __name__ == "__main__":
    train(parse_args())
