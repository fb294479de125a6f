"""The reward-guided ancestral sampler (RGAS, arXiv 2509.25035 section 4.3), plain, with autograd.

For bulk measurements, and for tests to hold the exported graphs to.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .backbone import Backbone
from .diffusion import categorical, grid, stay_probability, subs
from .discriminator import Discriminator


@dataclass(frozen=True)
class Guidance:
    """Early steps tilt by scale_start..scale_end times the reward's gradient; late steps, a share of
    rerank_ratio, draw `candidates` and choose among them by reward; all draws at `temperature`. Defaults: the
    published settings."""

    candidates: int = 4
    scale_start: float = 30.0
    scale_end: float = 40.0
    rerank_ratio: float = 0.5
    temperature: float = 1.0

    def tilted_steps(self, steps: int) -> int:
        """How many of `steps` tilt; the others re-rank."""
        return int(steps * (1 - self.rerank_ratio))

    def scale(self, step: int, steps: int) -> float:
        """Strength of the tilt at a step, linear over the tilted steps."""
        return self.scale_start + (self.scale_end - self.scale_start) * step / max(1, self.tilted_steps(steps) - 1)


def tilted(
    log_p: Tensor, z: Tensor, discriminator: Discriminator, scale: float, clip: float = 1.0
) -> tuple[Tensor, Tensor]:
    """log_p [P, V] at the masked positions of z [B, L], tilted: log_softmax(log p + scale g); and r [B].

    g = dr/d log p, clipped; r = the sum of scores over the masked positions of the soft canvas, where
    a masked position enters as softmax(log p) @ E.
    """
    mask_id = log_p.shape[1] - 1
    masked = z == mask_id
    embedding = discriminator.trunk.vocab_embed.embedding
    with torch.enable_grad():
        leaf = log_p.detach().requires_grad_(True)
        soft = torch.softmax(leaf, dim=-1) @ embedding.detach()
        canvas = embedding.detach()[z].masked_scatter(masked[..., None], soft.float())
        reward = (discriminator.scores(canvas) * masked).sum(-1)
        (gradient,) = torch.autograd.grad(reward.sum(), leaf)
    return torch.log_softmax(log_p + scale * gradient.clamp(-clip, clip), dim=-1), reward.detach()


def rerank(candidates: Tensor, discriminator: Discriminator) -> Tensor:
    """One of candidates [B, M, L] for each row, with probability softmax of the whole canvas's reward: [B, L]."""
    B, M, L = candidates.shape
    reward = discriminator(candidates.reshape(B * M, L)).sum(-1).view(B, M)
    chosen = categorical(torch.log_softmax(reward, dim=-1))
    return candidates[torch.arange(B), chosen]


@torch.no_grad()
def sample_guided(
    student: Backbone, discriminator: Discriminator, guidance: Guidance, z: Tensor, steps: int
) -> Tensor:
    """Fills the masks of z [B, L] in `steps` steps and, where need be, a plain clean-up pass, by torch's generator."""
    mask_id = student.config.mask_id
    z = z.clone()
    times = grid(steps)
    for step in range(steps + 1):
        masked = z == mask_id
        if not masked.any():
            break
        stay = stay_probability(times, step)
        log_p = subs(student(z, where=masked), mask_id)
        if step == steps:
            z = reveal(z, log_p / guidance.temperature, stay)
        elif step < guidance.tilted_steps(steps):
            log_p, _ = tilted(log_p, z, discriminator, guidance.scale(step, steps))
            z = reveal(z, log_p / guidance.temperature, stay)
        else:
            log_p = log_p / guidance.temperature
            z = rerank(torch.stack([reveal(z, log_p, stay) for _ in range(guidance.candidates)], dim=1), discriminator)
    return z


def reveal(z: Tensor, log_p: Tensor, stay: float) -> Tensor:
    """z [B, L] with each mask filled from log_p [P, V] with probability 1 - stay."""
    masked = z == log_p.shape[1] - 1
    shown = torch.rand(len(log_p)) >= stay
    tokens = z[masked]
    tokens[shown] = categorical(log_p[shown])
    return z.masked_scatter(masked, tokens)
