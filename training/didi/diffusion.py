"""Masked diffusion: the schedule, the loss (MDLM, arXiv 2406.07524), and a sampler for measurements in bulk.

The tests of the server's sampler compare it with `tools/oracle`, which draws the same random numbers.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA_MIN = 1e-3  # probability that a token is kept at t = 1
T_MIN = 1e-5  # last time of the sampling grid


def alpha(t):
    """Return the probability that a token is kept at time t in [0, 1] (log-linear schedule)."""
    return 1 - (1 - ALPHA_MIN) * t


def grid(steps: int) -> list[float]:
    """Return the times of a sample in `steps` steps: linspace(1, T_MIN, steps + 1)."""
    return np.linspace(1.0, T_MIN, steps + 1).tolist()


def stay_probability(times: list[float], step: int) -> float:
    """Return the probability that a masked position is still masked after `step`; 0 for the clean-up pass."""
    return (1 - alpha(times[step + 1])) / (1 - alpha(times[step])) if step + 1 < len(times) else 0.0


def subs(logits: Tensor, mask_id: int) -> Tensor:
    """Return log p(x0 | z_t) [.., V] under the SUBS parameterisation: the mask has probability zero."""
    logits = logits.float().clone()
    logits[..., mask_id] = -torch.inf
    return F.log_softmax(logits, dim=-1)


class Denoiser(Protocol):
    """A network: tokens [B, L] -> logits [B, L, V], or [P, V] where the mask `where` [B, L] is true."""

    def __call__(self, tokens: Tensor, *, where: Tensor | None = None) -> Tensor: ...


def corrupt(x: Tensor, t: Tensor, uniform: Tensor, mask_id: int) -> Tensor:
    """Forward process: replace each token of x [B, L] by the mask with probability 1 - alpha(t), t [B]."""
    return torch.where(uniform < (1 - alpha(t))[:, None], mask_id, x)


def low_discrepancy_times(count: int, offset: float) -> Tensor:
    """Return `count` times in [1e-3, 1], one in each of `count` equal strata (for less variance)."""
    t = (torch.arange(count, dtype=torch.float64) + offset) / count
    return (1e-3 + (1 - 1e-3) * t).float()


def nelbo(model: Denoiser, x: Tensor, t: Tensor, uniform: Tensor, mask_id: int) -> Tensor:
    """Return the negative ELBO [B] of each row of x [B, L] at times t [B], in nats summed over the row.

    MDLM's loss: the sum over masked positions of -log p(x0_i) (1 - ALPHA_MIN) / (1 - alpha_t).
    """
    z = corrupt(x, t, uniform, mask_id)
    masked = z == mask_id
    logits = model(z, where=masked)[:, :mask_id]  # SUBS: without the mask, which is the last token
    loss = F.cross_entropy(logits.float(), x[masked], reduction="none")
    weight = ((1 - ALPHA_MIN) / (1 - alpha(t)))[:, None].expand_as(x)[masked]
    rows = masked.nonzero()[:, 0]
    return torch.zeros(len(x)).index_add(0, rows, loss * weight)


def categorical(log_p: Tensor) -> Tensor:
    """Draw one token from each distribution log_p [.., V]."""
    return torch.distributions.Categorical(logits=log_p).sample()


@torch.no_grad()
def sample_plain(model: Denoiser, z: Tensor, steps: int, mask_id: int) -> Tensor:
    """Fill the masks of z [B, L] by ancestral sampling with torch's generator.

    Each step decides which positions it reveals before it runs the model, and runs it for rows that reveal
    any.
    """
    z = z.clone()
    times = grid(steps)
    for step in range(steps + 1):
        shown = (z == mask_id) & (torch.rand(z.shape) >= stay_probability(times, step))
        rows = shown.any(dim=1)
        if rows.any():
            z[shown] = categorical(subs(model(z[rows], where=shown[rows]), mask_id))
    return z


def in_batches(
    fill: Callable[[Tensor], Tensor], count: int, length: int, mask_id: int, label: str, batch: int = 64
) -> Tensor:
    """Return ids [count, length]: run `fill` on all-mask canvases, a batch at a time, and print progress."""
    rows: list[Tensor] = []
    while (done := sum(map(len, rows))) < count:
        rows.append(fill(torch.full((min(batch, count - done), length), mask_id)))
        print(f"\r{label}: {done + len(rows[-1])}/{count} samples ", end="", flush=True)
    print()
    return torch.cat(rows)
