"""Reference of sequential Monte Carlo over particles (Feynman-Kac steering, arXiv 2501.06848)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...backbone import Backbone
from ...diffusion import grid, stay_probability, subs
from .philox import CHOOSE, DRAW, REVEAL, uniforms
from .sampler import draw
from .spread import spread_out


@dataclass
class SmcStep:
    rewards: list[float]  # of each particle; empty if none revealed anything
    ess: float  # effective sample size before resampling
    ancestors: list[int] | None  # None if the step did not resample


@dataclass
class SmcGeneration:
    tokens: list[int]  # the whole canvas, prompt included
    steps: list[SmcStep]
    chosen: int  # the particle that became the sample
    margins: list[float]  # distance of each draw and decision to the nearest other outcome


@torch.no_grad()
def sample_smc(
    student: Backbone,
    reward: Callable[[Tensor], Tensor],
    *,
    particles: int,
    resample_below: float,
    prompt: list[int],
    length: int,
    steps: int,
    seed: int,
    temperature: float = 1.0,
    order: str = "random",
) -> SmcGeneration:
    """Generate `length` tokens after `prompt` with particles that take plain steps and are weighted by
    exp(change of reward), where reward maps canvases [K, L] to [K].

    Particle k draws with Philox's candidate k. When the effective sample size is below `resample_below`
    times the particles, they are resampled systematically by the step's CHOOSE uniform. After the last step
    that uniform chooses a particle by weight.
    """
    mask_id, K = student.config.mask_id, particles
    canvases = torch.tensor([prompt + [mask_id] * length]).repeat(K, 1)
    log_w, before = np.zeros(K), np.zeros(K)
    times, records, margins = grid(steps), [], []
    for step in range(steps + 1):
        stay, rewards = stay_probability(times, step), []
        for k in range(K):
            masked = (canvases[k] == mask_id).nonzero()[:, 0].numpy()
            shown = masked[uniforms(seed, 0, step, k, masked, REVEAL) >= stay]
            if order == "spread":
                shown = spread_out(masked, len(prompt), seed, step, 0, steps)
            if len(shown) == 0:
                continue
            log_p = subs(student(canvases[k : k + 1])[0], mask_id)
            rewards = [0.0]
            for position, u in zip(shown, uniforms(seed, 0, step, k, shown, DRAW)):
                token, margin = draw(log_p[position], temperature, float(u))
                canvases[k, position] = token
                margins.append(margin)
        if rewards:
            now = reward(canvases).double().numpy()
            log_w, before, rewards = log_w + now - before, now, now.tolist()
        w = np.exp(log_w - log_w.max())
        w /= w.sum()
        ess = 1 / (w**2).sum()
        u = float(uniforms(seed, 0, step, 0, [0], CHOOSE)[0])
        if step + 1 >= steps and not (canvases == mask_id).any():
            margins.append(float(np.abs(w.cumsum() - u).min()))
            chosen = int((w.cumsum() < u).sum())
            records.append(SmcStep(rewards, float(ess), None))
            return SmcGeneration(canvases[chosen].tolist(), records, chosen, margins)
        margins.append(abs(ess - resample_below * K))
        ancestors = None
        if ess < resample_below * K:
            points = (np.arange(K) + u) / K
            margins.append(float(np.abs(w.cumsum()[None, :-1] - points[:, None]).min()))
            ancestors = np.minimum((w.cumsum()[None] < points[:, None]).sum(1), K - 1).tolist()
            canvases, before, log_w = canvases[ancestors].clone(), before[ancestors], np.zeros(K)
        records.append(SmcStep(rewards, float(ess), ancestors))
    raise AssertionError("the clean-up pass reveals everything")
