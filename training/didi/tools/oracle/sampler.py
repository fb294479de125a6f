"""Reference samplers that draw the server's random numbers: its samples are compared with theirs by token.

Both are slow on purpose: written straight from the formulas, they compute every logit at every step and take
gradients by autograd.
"""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...backbone import Backbone
from ...diffusion import Denoiser, alpha, grid, stay_probability, subs
from ...guidance import Discriminator, Guidance, tilted
from .philox import CHOOSE, DRAW, REMASK, REVEAL, uniforms
from .spread import spread_out

@dataclass
class Reveal:
    """One position that a step revealed. `position` counts from the start of the canvas."""

    position: int
    token: int
    logprob: float


@dataclass
class Step:
    """One step. `rewards`: one (the soft canvas's) if it tilted, one a candidate if it re-ranked."""

    kind: str  # "plain", "tilt" or "rerank"
    revealed: list[Reveal]
    rewards: list[float]
    chosen: int | None
    remasked: list[int] = field(default_factory=list)  # positions masked again after the reveals


@dataclass
class Remask:
    """Self-correction by ReMDM (arXiv 2503.00307), from the share `from_` of the steps to `to`."""

    mode: str  # "random" or "confidence"
    rate: float
    from_: float = 0.0
    to: float = 1.0

    def sigma(self, times: list[float], step: int) -> float:
        """Return the mean probability with which `step` masks a revealed token again."""
        steps = len(times) - 1
        if step >= steps - 1 or not self.from_ <= step / steps < self.to:
            return 0.0
        return min(self.rate, (1 - alpha(times[step + 1])) / alpha(times[step]))

    def probabilities(self, sigma: float, shown: dict[int, float]) -> dict[int, float]:
        """Return the probability of each revealed position, given its log p, to be masked again."""
        if self.mode == "random":
            return dict.fromkeys(shown, sigma)
        weights = {i: math.exp(-math.exp(log_p)) for i, log_p in shown.items()}
        mean = sum(weights.values()) / max(1, len(weights))
        return {i: sigma * weight / mean for i, weight in weights.items()}


@dataclass
class Sample:
    tokens: list[int]  # the whole canvas, prompt included
    steps: list[Step]  # one entry a step; a clean-up pass, if any, is one more
    margins: list[float]  # distance of each draw and choice to the nearest other outcome


def draw(log_p: Tensor, temperature: float, uniform: float) -> tuple[int, float]:
    """Draw a token by inverse CDF from log_p [V] at `temperature` (0: argmax); return it with its margin."""
    if temperature == 0:
        return int(log_p.argmax()), 1.0
    cdf = torch.softmax(log_p.double() / temperature, dim=-1).cumsum(-1)
    token = int((cdf < uniform * cdf[-1]).sum())
    return token, float((cdf / cdf[-1] - uniform).abs().min())


def masked_after(times: list[float], step: int, length: int) -> int:
    """Return how many of `length` positions are masked after `step` if steps reveal exactly their share."""
    if step + 1 >= len(times):
        return 0
    return int(length * (1 - alpha(times[step + 1])) / (1 - alpha(1.0)) + 0.5)


def block_at(step: int, steps: int, blocks: int) -> tuple[int, int, int]:
    """Return the block that `step` of a budget of `steps` works on, and its steps as [start, end)."""
    starts = [block * steps // blocks for block in range(blocks + 1)]
    block = max(block for block in range(blocks) if starts[block] <= step)
    return block, starts[block], starts[block + 1]


def keep(
    drawn: list[Reveal],
    log_p: Tensor,
    order: str,
    least: int,
    threshold: float | None,
    entropy_budget: float | None,
) -> tuple[list[Reveal], list[float]]:
    """Return the draws that a step keeps, at least `least` of them, and the margins of that choice.

    `log_p` [P, V] is the distribution of each draw.
    """
    entropy = -(log_p.double().exp() * log_p.double()).nan_to_num().sum(-1)
    first, second = log_p.double().exp().topk(2).values.T
    confidence = torch.tensor([reveal.logprob for reveal in drawn]).double()
    score = {"confidence": confidence, "entropy": -entropy, "margin": first - second}[order]
    ranked = sorted(range(len(drawn)), key=lambda i: -float(score[i]))
    count, margins = least, []
    if threshold is not None:
        count = max(count, sum(reveal.logprob >= math.log(threshold) for reveal in drawn))
        margins += [abs(reveal.logprob - math.log(threshold)) for reveal in drawn]
    if entropy_budget is not None:
        sums = entropy[ranked].cumsum(0)
        count = max(count, int((sums <= entropy_budget).sum()))
        margins += (sums - entropy_budget).abs().tolist()
    if count < len(drawn):
        margins.append(float(score[ranked[count - 1]] - score[ranked[count]]))
    return [drawn[i] for i in sorted(ranked[:count])], margins


@torch.no_grad()
def sample(
    model: Denoiser,
    *,
    prompt: list[int],
    length: int,
    steps: int,
    seed: int,
    mask_id: int,
    temperature: float = 1.0,
    order: str = "random",
    threshold: float | None = None,
    entropy_budget: float | None = None,
    block_length: int | None = None,
    remask: Remask | None = None,
) -> Sample:
    """Generate `length` tokens after `prompt` by ancestral sampling on the grid linspace(1, T_MIN, steps +
    1).

    A step from t to s reveals each masked position with probability 1 - (1-alpha_s)/(1-alpha_t). What is
    still masked after the last step is revealed by one clean-up pass.

    In order "spread" a step of n reveals every n-th position. In the other orders it draws at every masked
    position and keeps its share: the draws with the greatest log p, or those of the smallest entropy. A
    `threshold` of probability (confidence) or an `entropy_budget` in nats (entropy) admits more. With
    `block_length`, blocks are revealed from the left, each with its share of the steps. `remask` masks
    revealed tokens of the block again after the reveals of a step, which reveals as many more.
    """
    tokens = torch.tensor([prompt + [mask_id] * length])
    block_length = block_length or length
    blocks = -(-length // block_length)
    is_adaptive = threshold is not None or entropy_budget is not None
    records, margins, step, logprobs = [], [], 0, {}
    while step <= steps:
        block, start, end = block_at(min(step, steps - 1), steps, blocks)
        times = grid(end - start)
        limit = len(prompt) + min(length, (block + 1) * block_length)
        masked = (tokens[0] == mask_id).nonzero()[:, 0].numpy()
        if len(masked) == 0 and (step == steps or is_adaptive):
            break
        masked = masked[masked < limit]
        chosen = masked
        sigma = remask.sigma(times, step - start) if remask else 0.0
        again = []
        if sigma > 0:
            first = len(prompt) + block * block_length
            shown = {i: log_p for i, log_p in sorted(logprobs.items()) if i >= first}
            u = uniforms(seed, 0, step, 0, np.array(list(shown)), REMASK)
            p = np.array(list(remask.probabilities(sigma, shown).values()))
            again = np.array(list(shown), dtype=int)[u < p].tolist()
            margins += np.abs(u - p).tolist()
        if order == "random":
            t, s = (alpha(times[min(k, len(times) - 1)]) for k in (step - start, step - start + 1))
            stay = (1 - s - sigma * t) / (1 - t) if step < steps else 0.0
            chosen = masked[uniforms(seed, 0, step, 0, masked, REVEAL) >= stay]
        elif order == "spread":
            chosen = spread_out(masked, len(prompt) + block * block_length, seed, step, start, end)
        else:
            size = min(block_length, length - block * block_length)
            share = len(masked) + len(again) - masked_after(times, step - start, size)
            least = max(share, int(is_adaptive))
            if least == 0:
                chosen = masked[:0]
        log_p = subs(model(tokens)[0], mask_id)
        revealed = []
        for position, u in zip(chosen, uniforms(seed, 0, step, 0, chosen, DRAW)):
            token, margin = draw(log_p[position], temperature, float(u))
            revealed.append(Reveal(int(position), token, float(log_p[position, token])))
            margins.append(margin)
        if order not in ("random", "spread") and revealed:
            revealed, near = keep(revealed, log_p[chosen], order, least, threshold, entropy_budget)
            margins += near
        for reveal in revealed:
            tokens[0, reveal.position] = reveal.token
            logprobs[reveal.position] = reveal.logprob
        for position in again:
            tokens[0, position] = mask_id
            del logprobs[position]
        records.append(Step("plain", revealed, [], None, again))
        step += 1
        if is_adaptive and step < end and not (tokens[0, :limit] == mask_id).any():
            step = end
    return Sample(tokens[0].tolist(), records, margins)


@torch.no_grad()
def choice_scores(model: Denoiser, parts: list[list[int] | list[list[int]]], mask_id: int) -> list[float]:
    """Return the joint log-likelihood of each combination of options, the last choice fastest.

    A part is given ids (masks among them), or a choice: a list of options, each a list of ids. Each token of
    the options is predicted with those of the options before it shown and those after it masked.
    """
    choices = [part for part in parts if isinstance(part[0], list)]
    scores = []
    for options in itertools.product(*choices):
        picked, canvas, chosen = iter(options), [], []
        for part in parts:
            is_choice = isinstance(part[0], list)
            ids = next(picked) if is_choice else part
            chosen += range(len(canvas), len(canvas) + len(ids)) if is_choice else []
            canvas += ids
        total = 0.0
        for k, position in enumerate(chosen):
            tokens = torch.tensor([canvas])
            tokens[0, chosen[k:]] = mask_id
            total += float(subs(model(tokens)[0], mask_id)[position, canvas[position]])
        scores.append(total)
    return scores


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
    temperature: float = 1.0,
    order: str = "random",
) -> Sample:
    """Generate `length` tokens after `prompt` by RGAS.

    In order "spread" (see `sample`) the candidates of a step reveal the same positions. Candidate c of a step
    draws with Philox's candidate c; the step's CHOOSE uniform decides which one is kept. A step that reveals
    nothing in any candidate changes nothing and is not guided.
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
        uniform = lambda c, purpose: uniforms(seed, 0, step, c, masked.numpy(), purpose)  # noqa: B023, E731
        shown = [uniform(c, REVEAL) >= stay for c in range(count)]
        if order == "spread":
            shown = [np.isin(masked, spread_out(masked.numpy(), len(prompt), seed, step, 0, steps))] * count
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
            u = float(uniforms(seed, 0, step, 0, [0], CHOOSE)[0])
            chosen, margin = draw(scores, 1.0, u)
            margins.append(margin)
            rewards = scores.tolist()
        revealed = candidates[chosen or 0]
        for reveal in revealed:
            tokens[0, reveal.position] = reveal.token
        records.append(Step(kind, revealed, rewards, chosen))
    return Sample(tokens[0].tolist(), records, margins)
