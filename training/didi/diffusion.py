"""Masked diffusion: the schedule, the loss, and a plain reference sampler.

The sampler is written straight from the formulas and computes every logit at every step. It is
slow on purpose: it is the oracle the server's sampler is held to, token for token.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .philox import DRAW, REVEAL, uniforms

ALPHA_MIN = 1e-3  # what is kept at t = 1
T_MIN = 1e-5  # where the sampling grid ends


def alpha(t):
    """Log-linear schedule: the probability that a token is kept at time t in [0, 1]."""
    return 1 - (1 - ALPHA_MIN) * t


def grid(steps: int) -> list[float]:
    """Times of a generation in `steps` steps: linspace(1, T_MIN, steps + 1)."""
    return np.linspace(1.0, T_MIN, steps + 1).tolist()


def stay_probability(times: list[float], step: int) -> float:
    """Probability that a masked position is still masked after `step`; 0 for the clean-up pass after the last."""
    return (1 - alpha(times[step + 1])) / (1 - alpha(times[step])) if step + 1 < len(times) else 0.0


def masked_after(times: list[float], step: int, length: int) -> int:
    """Positions of `length` that are masked after `step` when a step reveals its share exactly."""
    if step + 1 >= len(times):
        return 0
    return int(length * (1 - alpha(times[step + 1])) / (1 - alpha(1.0)) + 0.5)


def subs(logits: Tensor, mask_id: int) -> Tensor:
    """Log-probabilities of p(x0 | z_t) [.., V] under SUBS: the mask itself has probability zero."""
    logits = logits.float().clone()
    logits[..., mask_id] = -torch.inf
    return F.log_softmax(logits, dim=-1)


class Denoiser(Protocol):
    def __call__(self, tokens: Tensor, *, where: Tensor | None = None) -> Tensor: ...


def corrupt(x: Tensor, t: Tensor, uniform: Tensor, mask_id: int) -> Tensor:
    """Forward process: each token of x [B, L] becomes the mask with probability 1 - alpha(t), t [B]."""
    return torch.where(uniform < (1 - alpha(t))[:, None], mask_id, x)


def low_discrepancy_times(count: int, offset: float) -> Tensor:
    """`count` times in [1e-3, 1], one in each of `count` equal strata (lower variance than iid)."""
    t = (torch.arange(count, dtype=torch.float64) + offset) / count
    return (1e-3 + (1 - 1e-3) * t).float()


def nelbo(model: Denoiser, x: Tensor, t: Tensor, uniform: Tensor, mask_id: int) -> Tensor:
    """Negative ELBO of each row of x [B, L] at times t [B], nats summed over the row: [B].

    MDLM's loss: sum over masked positions of -log p(x0_i) (1 - ALPHA_MIN) / (1 - alpha_t).
    """
    z = corrupt(x, t, uniform, mask_id)
    masked = z == mask_id
    logits = model(z, where=masked)
    logits = logits.float().index_fill(-1, torch.tensor([mask_id]), -torch.inf)
    loss = F.cross_entropy(logits, x[masked], reduction="none")
    weight = ((1 - ALPHA_MIN) / (1 - alpha(t)))[:, None].expand_as(x)[masked]
    rows = masked.nonzero()[:, 0]
    return torch.zeros(len(x)).index_add(0, rows, loss * weight)


@dataclass
class Reveal:
    """One position that a step revealed. `position` counts from the start of the canvas."""

    position: int
    token: int
    logprob: float


@dataclass
class Generation:
    tokens: list[int]  # the whole canvas, prompt included
    steps: list[list[Reveal]]  # one entry per step; a clean-up pass, if any, is one more
    margins: list[float]  # how near each draw, and each choice by confidence, came to another outcome


def draw(log_p: Tensor, temperature: float, uniform: float) -> tuple[int, float]:
    """A token by inverse CDF from log_p [V] sharpened by `temperature` (0: argmax), and its margin."""
    if temperature == 0:
        return int(log_p.argmax()), 1.0
    cdf = torch.softmax(log_p.double() / temperature, dim=-1).cumsum(-1)
    token = int((cdf < uniform * cdf[-1]).sum())
    return token, float((cdf / cdf[-1] - uniform).abs().min())


def block_at(step: int, steps: int, blocks: int) -> tuple[int, int, int]:
    """Return (block, start, end): the block that `step` of a budget of `steps` works on, and its steps [start, end)."""
    starts = [block * steps // blocks for block in range(blocks + 1)]
    block = max(block for block in range(blocks) if starts[block] <= step)
    return block, starts[block], starts[block + 1]


def keep(
    record: list[Reveal], log_p: Tensor, order: str, least: int, threshold: float | None, entropy_budget: float | None
) -> tuple[list[Reveal], list[float]]:
    """Return the reveals that a step keeps, and how near the choice came to another one. `log_p` is [len(record), V]."""
    p = log_p.double().exp()
    entropy = -(p * log_p.double()).nan_to_num().sum(-1)
    score = {
        "confidence": torch.tensor([reveal.logprob for reveal in record]).double(),
        "entropy": -entropy,
    }[order]
    ranked = sorted(range(len(record)), key=lambda i: -float(score[i]))
    count, margins = least, []
    if threshold is not None:
        count = max(count, sum(reveal.logprob >= math.log(threshold) for reveal in record))
        margins += [abs(reveal.logprob - math.log(threshold)) for reveal in record]
    if entropy_budget is not None:
        sums = entropy[ranked].cumsum(0)
        count = max(count, int((sums <= entropy_budget).sum()))
        margins += (sums - entropy_budget).abs().tolist()
    if count < len(record):
        margins.append(float(score[ranked[count - 1]] - score[ranked[count]]))
    return [record[i] for i in sorted(ranked[:count])], margins


@torch.no_grad()
def sample(
    model: Denoiser,
    *,
    prompt: list[int],
    length: int,
    steps: int,
    seed: int,
    mask_id: int,
    sample_index: int = 0,
    temperature: float = 1.0,
    order: str = "random",
    threshold: float | None = None,
    entropy_budget: float | None = None,
    block_length: int | None = None,
) -> Generation:
    """Ancestral sampling of `length` tokens after `prompt` on the grid linspace(1, T_MIN, steps + 1).

    A step from t to s reveals each masked position with probability 1 - (1-alpha_s)/(1-alpha_t).
    What is still masked after the last step is revealed by one clean-up pass. Uniforms come from
    Philox keyed by (seed, sample, step, candidate 0, position).

    In the orders "confidence" and "entropy" a step draws at every masked position and keeps its share: those with the
    greatest log p or the smallest entropy. A `threshold` of probability (confidence) or an `entropy_budget` in nats (entropy) admits more. With `block_length`
    blocks are revealed from the left, each with its share of the steps.
    """
    tokens = torch.tensor([prompt + [mask_id] * length])
    block_length = block_length or length
    blocks = -(-length // block_length)
    is_adaptive = threshold is not None or entropy_budget is not None
    records, margins, step = [], [], 0
    while step <= steps:
        block, start, end = block_at(min(step, steps - 1), steps, blocks)
        times = grid(end - start)
        limit = len(prompt) + min(length, (block + 1) * block_length)
        masked = (tokens[0] == mask_id).nonzero()[:, 0].numpy()
        if len(masked) == 0 and (step == steps or is_adaptive):
            break
        masked = masked[masked < limit]
        chosen = masked
        if order == "random":
            stay = stay_probability(times, step - start)
            chosen = masked[uniforms(seed, sample_index, step, 0, masked, REVEAL) >= stay]
        else:
            size = min(block_length, length - block * block_length)
            least = max(len(masked) - masked_after(times, step - start, size), int(is_adaptive))
            if least == 0:
                records.append([])
                step += 1
                continue
        log_p = subs(model(tokens)[0], mask_id)
        record = []
        for position, u in zip(chosen, uniforms(seed, sample_index, step, 0, chosen, DRAW)):
            token, margin = draw(log_p[position], temperature, float(u))
            record.append(Reveal(int(position), token, float(log_p[position, token])))
            margins.append(margin)
        if order != "random":
            record, near = keep(record, log_p[chosen], order, least, threshold, entropy_budget)
            margins += near
        for reveal in record:
            tokens[0, reveal.position] = reveal.token
        records.append(record)
        step += 1
        if is_adaptive and step < end and not (tokens[0, :limit] == mask_id).any():
            step = end
    return Generation(tokens[0].tolist(), records, margins)


def categorical(log_p: Tensor) -> Tensor:
    """One draw from each distribution log_p [.., V]."""
    return torch.distributions.Categorical(logits=log_p).sample()


@torch.no_grad()
def sample_plain(model: Denoiser, z: Tensor, steps: int, mask_id: int) -> Tensor:
    """Fills the masks of z [B, L] by ancestral sampling with torch's generator; for bulk, not for golden vectors."""
    z = z.clone()
    times = grid(steps)
    for step in range(steps + 1):
        shown = (z == mask_id) & (torch.rand(z.shape) >= stay_probability(times, step))
        rows = shown.any(dim=1)  # the others need no pass
        if rows.any():
            z[shown] = categorical(subs(model(z[rows], where=shown[rows]), mask_id))
    return z


def in_batches(fill: Callable[[Tensor], Tensor], count: int, length: int, mask_id: int, label: str, batch: int = 64) -> Tensor:
    """[count, length] ids: `fill` completes all-mask canvases, a batch at a time, with progress."""
    rows: list[Tensor] = []
    while (done := sum(map(len, rows))) < count:
        rows.append(fill(torch.full((min(batch, count - done), length), mask_id)))
        print(f"\r{label}: {done + len(rows[-1])}/{count} samples ", end="", flush=True)
    print()
    return torch.cat(rows)
