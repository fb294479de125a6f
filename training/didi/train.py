"""Train a language model: `python -m didi.train --run DIR --tokenizer FILE --steps N`.

The masked-diffusion denoiser by default; `--objective causal` trains an autoregressive model of the same
sizes. Losses are in nats a token: the NELBO of the one, the negative log-likelihood of the other.

A run is a folder: `checkpoint.pt` (everything a resume needs), `stable.pt` (the state in which the learning
rate begins to fall: where a longer run continues from), `best.pt` (the lowest validation loss so far),
`log.csv`. The learning rate warms up, stays, and falls to zero over the last part. `--resume` continues to
the same curve bit for bit, because batches and noise are functions of the step.
"""

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import TextIO

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from .backbone import Backbone, BackboneConfig, load_backbone
from .command import Deadline, add_bf16_flag, add_compile_flag, add_corpus_flag, add_device_flag
from .command import add_minutes_flag, command_parser, compile_blocks, keep_freed_memory, stop_on_signal, use_device
from .corpus import CORPORA, SEPARATOR, Batches, Stream, load_streams
from .learn.objectives import OBJECTIVES, evaluate, weighted
from .learn.optim import Ema, Muon, load_checkpoint, save_checkpoint

VALIDATION_WINDOWS = 64  # of each source


def log_fields(corpus: str) -> list[str]:
    """Return the columns of the log, with one for each source of the corpus."""
    by_source = [f"validation_{name[0]}" for name in sorted(CORPORA[corpus])]
    return ["step", "tokens", "cpu_seconds", "train_nats", "validation_nats", *by_source]


def learning_rate(step: int, steps: int, warmup: int, cooldown: float) -> float:
    """Return a factor in [0, 1]: linear warm-up, constant, linear fall over the last `cooldown` share."""
    falling = max(1, int(steps * cooldown))
    return min(1.0, (step + 1) / warmup, (steps - step) / falling)


def build_optimizers(
    model: nn.Module, lr: float, muon_lr: float, weight_decay: float, muon_dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks, AdamW for the rest (embeddings, norms, adaLN, output)."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inner = name.startswith("blocks.") and parameter.ndim == 2 and "adaLN" not in name
        (matrices if inner else others).append(parameter)
    adamw = torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    return [Muon(matrices, muon_lr, weight_decay, muon_dtype), adamw]


def grown(state: dict[str, Tensor], hidden: int) -> dict[str, Tensor]:
    """Return the state of a model with twice as many blocks that computes the same function.

    Every block is followed by a copy of itself whose gates are zero, so that the copy adds nothing until its
    gates are trained.
    """
    result = {key: value for key, value in state.items() if not key.startswith("blocks.")}
    gates = torch.zeros(6, hidden, dtype=torch.bool)
    gates[[2, 5]] = True  # of attention and of the MLP, in the order of Block.forward
    for key in (key for key in state if key.startswith("blocks.")):
        _, index, name = key.split(".", 2)
        copy = state[key].clone()
        if name.startswith("adaLN_modulation."):
            copy[gates.flatten()] = 0
        result[f"blocks.{2 * int(index)}.{name}"] = state[key]
        result[f"blocks.{2 * int(index) + 1}.{name}"] = copy
    return result


class Run:
    """One training run: model, optimisers, average, and their checkpoint."""

    COUNTS = ("step", "tokens", "cpu_seconds")

    def __init__(self, args: argparse.Namespace, tokenizer: Tokenizer):
        torch.manual_seed(args.seed)
        self.args = args
        sizes = {name: getattr(args, name) for name in ("hidden", "blocks", "heads", "cond", "context")}
        self.config = BackboneConfig(vocab_size=tokenizer.get_vocab_size(), **sizes)
        self.objective = OBJECTIVES[args.objective](tokenizer.token_to_id(SEPARATOR))
        self.model = self.objective.Model(self.config)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = args.dropout
        if args.compile:
            compile_blocks(self.model)
        muon_dtype = torch.bfloat16 if args.bf16 else torch.float32
        rates = (args.lr, args.muon_lr, args.weight_decay)
        self.optimizers = build_optimizers(self.model, *rates, muon_dtype)
        self.base_rates = [args.muon_lr, args.lr]
        self.ema = Ema(self.model, args.ema)
        self.step, self.tokens, self.cpu_seconds = 0, 0, 0.0
        self.averaged = self.objective.Model(self.config)

    def save(self, path: Path) -> None:
        state = {name: getattr(self, name) for name in self.COUNTS}
        state |= {"config": self.config.to_dict(), "model": self.model.state_dict(), "ema": self.ema.weights}
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        save_checkpoint(state, path)

    def load(self, path: Path) -> None:
        """Restore a checkpoint. Raise ValueError if it was made with other sizes."""
        state = load_checkpoint(path)
        if state["config"] != self.config.to_dict():
            raise ValueError(f"{path} holds {state['config']}, not {self.config.to_dict()}")
        self.model.load_state_dict(state["model"])
        self.ema.weights = state["ema"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        for name in self.COUNTS:
            setattr(self, name, state[name])

    def start_from(self, path: Path, grow: bool) -> None:
        """Take over the weights of another model, or of one with half as many blocks if `grow`.

        Raise ValueError if this model does not have twice as many blocks, RuntimeError if the weights do not
        fit.
        """
        other = load_backbone(path)
        state, blocks = other.state_dict(), len(other.blocks)
        if grow:
            if len(self.model.blocks) != 2 * blocks:
                raise ValueError(f"--grow: weights of {blocks} blocks need --blocks {2 * blocks}")
            state = grown(state, self.config.hidden)
        self.model.load_state_dict(state)
        self.ema = Ema(self.model, self.args.ema)

    def train_step(self, batches: Batches) -> float:
        """Do one update and return the loss in nats a token."""
        args = self.args
        factor = learning_rate(self.step, args.steps, args.warmup, args.cooldown)
        for optimizer, rate in zip(self.optimizers, self.base_rates):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        rows, rng = batches.at(self.step)
        x = torch.as_tensor(rows)
        torch.manual_seed(args.seed * 1_000_003 + self.step)  # for dropout
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for part in x.chunk(args.accumulate):
            with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.bf16):
                of_part = self.objective.train_loss(self.model, part, rng) * (len(part) / len(x))
            of_part.backward()
            loss += float(of_part.detach())
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.ema.update(self.model, self.step)
        self.step += 1
        self.tokens += x.numel()
        return loss

    def validate(self, streams: dict[str, Stream]) -> dict[str, float]:
        self.averaged.load_state_dict(self.ema.weights)
        with torch.autocast(self.args.device, dtype=torch.bfloat16, enabled=self.args.bf16):
            return evaluate(self.objective, self.averaged.eval(), streams, VALIDATION_WINDOWS)


def open_log(path: Path, fields: list[str], resumed_at: int) -> tuple[TextIO, csv.DictWriter, float]:
    """Open the log, cut back to the resumed step; return also the lowest validation loss in it."""
    kept = []
    if resumed_at and path.exists():
        with path.open() as file:
            kept = [row for row in csv.DictReader(file) if int(row["step"]) <= resumed_at]
    file = path.open("w", newline="")
    writer = csv.DictWriter(file, fields)
    writer.writeheader()
    writer.writerows(kept)
    file.flush()
    return file, writer, min((float(row["validation_nats"]) for row in kept), default=float("inf"))


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    use_device(args.device)
    keep_freed_memory()
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    run = Run(args, tokenizer)
    args.run.mkdir(parents=True, exist_ok=True)
    checkpoint = args.run / "checkpoint.pt"
    if args.resume:
        run.load(args.resume_from or checkpoint)
    elif checkpoint.exists():
        sys.exit(f"{checkpoint} exists: pass --resume to continue it, or name another --run")
    elif args.init:
        run.start_from(args.init, args.grow)
    streams = load_streams("train", tokenizer, args.corpus)
    held_out = load_streams("validation", tokenizer, args.corpus)
    batches = Batches(streams, args.context, args.batch_tokens, args.seed)
    parameters = sum(p.numel() for p in run.model.parameters())
    available = sum(len(stream.ids) for stream in streams.values())
    print(f"{parameters:,} parameters, {available:,} training tokens")

    stop = stop_on_signal()
    file, log, best = open_log(args.run / "log.csv", log_fields(args.corpus), run.step)
    started, cpu_started, tokens_started = time.time(), time.process_time() - run.cpu_seconds, run.tokens
    losses: list[float] = []
    deadline = Deadline(args.minutes)
    while run.step < args.steps and not stop:
        args.steps = deadline.plan(run.step, args.steps)
        if run.step == args.steps - max(1, int(args.steps * args.cooldown)):
            run.save(args.run / "stable.pt")
        losses.append(run.train_step(batches))
        run.cpu_seconds = time.process_time() - cpu_started
        rate = (run.tokens - tokens_started) / (time.time() - started)
        if sys.stdout.isatty() or run.step % 20 == 0:
            left = (args.steps - run.step) * args.batch_tokens / rate / 60
            mean = sum(losses[-50:]) / len(losses[-50:])
            progress = f"{mean:.3f} nats/token  {rate:,.0f} tokens/s  {left:.0f} min left "
            print(f"\rstep {run.step}/{args.steps}  {progress}", end="", flush=True)
        if run.step % args.validate_every == 0 or run.step == args.steps:
            by_source = run.validate(held_out)
            row = {
                "step": run.step,
                "tokens": run.tokens,
                "cpu_seconds": round(run.cpu_seconds),
                "train_nats": round(sum(losses) / len(losses), 4),
                "validation_nats": round(weighted(by_source), 4),
            }
            log.writerow(row | {f"validation_{name[0]}": round(v, 4) for name, v in by_source.items()})
            file.flush()
            losses = []
            run.save(checkpoint)
            if weighted(by_source) < best:
                best = weighted(by_source)
                run.save(args.run / "best.pt")
            detail = ", ".join(f"{name[0]}: {value:.3f}" for name, value in by_source.items())
            figures = f"validation {weighted(by_source):.4f} ({detail}) nats/token"
            hours = f"{rate:,.0f} tokens/s  {run.cpu_seconds / 3600:.2f} CPU h"
            print(f"\rstep {run.step}/{args.steps}  {figures}  {hours}", flush=True)
    run.save(checkpoint)
    file.close()
    if stop:
        print(f"\nstopped at step {run.step}; continue with --resume")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of this run")
    add("--tokenizer", type=Path, required=True, help="tokenizer.json")
    add_corpus_flag(parser)
    add("--objective", choices=list(OBJECTIVES), default="masked-diffusion", help="what is trained")
    add("--steps", type=int, default=4000, help="updates in all, resumed ones included")
    add_minutes_flag(parser)
    add("--resume", action="store_true", help="continue from the run's checkpoint")
    add("--resume-from", type=Path, help="with --resume: another checkpoint, such as stable.pt")
    add("--init", type=Path, help="start from these weights: checkpoint.pt or .safetensors")
    add("--grow", action="store_true", help="with --init: the weights have half as many blocks")
    add("--batch-tokens", type=int, default=8192, help="tokens of an update")
    add("--accumulate", type=int, default=1, help="parts of a batch, one in memory at a time")
    add("--context", type=int, default=256, help="longest window, in tokens")
    add("--hidden", type=int, default=192, help="width of the model")
    add("--blocks", type=int, default=6, help="number of blocks")
    add("--heads", type=int, default=6, help="attention heads of a block")
    add("--cond", type=int, default=64, help="width of the conditioning vector")
    add("--lr", type=float, default=3e-3, help="AdamW's rate, for embeddings, norms and output")
    add("--muon-lr", type=float, default=3e-3, help="Muon's rate, for the matrices of the blocks")
    add("--weight-decay", type=float, default=0.01, help="Muon's, times its rate at each update")
    add("--warmup", type=int, default=200, help="steps over which the rate rises")
    add("--cooldown", type=float, default=0.25, help="share of the steps over which the rate falls")
    add("--ema", type=float, default=0.998, help="decay of the average of the weights")
    add("--dropout", type=float, default=0.0, help="of what attention and MLP add to the stream")
    add("--validate-every", type=int, default=200, help="steps between validations, each with a checkpoint")
    add_compile_flag(parser)
    add("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    add("--seed", type=int, default=0, help="of the weights, batches and noise")
    add_device_flag(parser)
    add_bf16_flag(parser, "use bfloat16 matrix products")
    return parser.parse_args(argv)


if __name__ == "__main__":
    train(parse_args())
