"""The guided sampler as an oracle: one generation, the uniforms the server draws, every logit at every step.

As `diffusion.sample` is to the plain sampler, so this is to RGAS: slow on purpose, and what the server's guided
generations are held to, token for token.
"""

from dataclasses import dataclass

import torch

from .backbone import Backbone
from .diffusion import Reveal, draw, grid, stay_probability, subs
from .discriminator import Discriminator
from .guided_sampling import Guidance, tilted
from .philox import CHOOSE, DRAW, REVEAL, uniforms


@dataclass
class GuidedStep:
    """One step. `rewards`: of the soft canvas (one) when tilting, of each candidate when re-ranking, none otherwise."""

    kind: str  # "plain", "tilt" or "rerank"
    revealed: list[Reveal]
    rewards: list[float]
    chosen: int | None


@dataclass
class GuidedGeneration:
    tokens: list[int]  # the whole canvas, prompt included
    steps: list[GuidedStep]  # one entry per step; a clean-up pass, if any, is one more
    margins: list[float]  # per draw and choice: distance of its uniform to the nearest boundary


@torch.no_grad()
def sample_guided(
    student: Backbone,
    discriminator: Discriminator,
    guidance: Guidance,
    *,
    prompt: list[int],
    length: int,
    steps: int,
    seed: int,
    sample_index: int = 0,
    temperature: float = 1.0,
) -> GuidedGeneration:
    """Guided ancestral sampling of `length` tokens after `prompt`.

    Candidate c of a step draws with Philox's candidate c; which one is kept is decided by the CHOOSE uniform of the
    step. A step in which nothing is revealed, in any candidate, changes nothing and is not guided.
    """
    mask_id = student.config.mask_id
    tokens = torch.tensor([prompt + [mask_id] * length])
    times, records, margins = grid(steps), [], []
    for step in range(steps + 1):
        masked = (tokens[0] == mask_id).nonzero()[:, 0]
        if step == steps and len(masked) == 0:
            break
        stay = stay_probability(times, step)
        kind = "plain" if step == steps else "tilt" if step < guidance.tilted_steps(steps) else "rerank"
        log_p = subs(student(tokens)[0, masked], mask_id)
        count = guidance.candidates if kind == "rerank" else 1
        uniform = lambda candidate, purpose: uniforms(seed, sample_index, step, candidate, masked.numpy(), purpose)  # noqa: B023, E731
        shown = [uniform(c, REVEAL) >= stay for c in range(count)]
        rewards, chosen, target = [], None, log_p
        if kind == "tilt" and shown[0].any():
            target, reward = tilted(log_p, tokens, discriminator, guidance.scale(step, steps))
            rewards = reward.tolist()
        candidates = []
        for c in range(count):
            candidates.append([])
            for i, u in enumerate(uniform(c, DRAW)):
                if shown[c][i]:
                    token, margin = draw(target[i], temperature, float(u))
                    margins.append(margin)
                    candidates[c].append(Reveal(int(masked[i]), token, float(log_p[i, token])))
        if kind == "rerank" and any(candidates):
            canvases = tokens.repeat(count, 1)
            for canvas, candidate in zip(canvases, candidates):
                for reveal in candidate:
                    canvas[reveal.position] = reveal.token
            scores = discriminator(canvases).sum(-1)
            u = float(uniforms(seed, sample_index, step, 0, [0], CHOOSE)[0])
            chosen, margin = draw(scores, 1.0, u)
            margins.append(margin)
            rewards = scores.tolist()
        revealed = candidates[chosen or 0]
        for reveal in revealed:
            tokens[0, reveal.position] = reveal.token
        records.append(GuidedStep(kind, revealed, rewards, chosen))
    return GuidedGeneration(tokens[0].tolist(), records, margins)
