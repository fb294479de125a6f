"""The policy gradient of DiDi-Instruct: what the student wrote, what it is rewarded for, what holds it back.

The objective is the integral over t of w(t) KL(student's z_t || teacher's z_t). By the score-function
identity its gradient is that of -E[w(t) R log p(trajectory)], where R = log q_teacher(z_t) / q_student(z_t)
is what a discriminator between the two estimates (arXiv 2509.25035, section 4).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .backbone import Backbone
from .diffusion import alpha, categorical, subs


@dataclass
class Step:
    """One step of a generation, `before` -> `after`, each [B, L].

    `log_p` [P, V] is the model's p(x0 | before) at the masked positions of `before`, row by row; or, if
    every row of `before` is the same, at those of one row.
    """

    before: Tensor
    after: Tensor
    log_p: Tensor

    @property
    def asked(self) -> Tensor:
        """The states that `log_p` speaks of: `before`, or its first row if one stands for all."""
        mask_id = self.log_p.shape[1] - 1
        masked = int((self.before == mask_id).sum())
        return self.before if masked == len(self.log_p) else self.before[:1]

    def log_prob(self) -> Tensor:
        """log-probability [B] of the tokens that the step revealed."""
        masked = self.before == self.log_p.shape[1] - 1
        tokens = self.after[masked]
        # One row's log_p serves all rows in turn.
        pick = torch.arange(len(tokens)) % max(1, len(self.log_p))
        revealed = tokens != self.log_p.shape[1] - 1
        chosen = self.log_p[pick[revealed], tokens[revealed]]
        rows = masked.nonzero()[:, 0][revealed]
        return torch.zeros(len(self.before)).index_add(0, rows, chosen)


def predict(model: Backbone, canvas: Tensor) -> Tensor:
    """log p(x0 | canvas) [P, V] at the masked positions of canvas [B, L], under SUBS."""
    mask_id = model.config.mask_id
    return subs(model(canvas, where=canvas == mask_id), mask_id)


def rollout(student: Backbone, count: int, length: int, tau: Tensor | None) -> list[Step]:
    """`count` generations from all masks through the state at tau [count] (intermediate-state matching);
    without tau in a single step. Keeps the graph: what is rewarded is what was just computed."""
    mask_id = student.config.mask_id
    start = torch.full((count, length), mask_id)
    log_p = predict(student, start[:1])
    shown = torch.ones_like(start, dtype=torch.bool)
    if tau is not None:
        shown = torch.rand(start.shape) >= ((1 - alpha(tau)) / (1 - alpha(1.0)))[:, None]
    middle = start.clone()
    middle[shown] = categorical(log_p.detach().expand(count, length, -1)[shown])
    steps = [Step(start, middle, log_p)]
    if tau is not None:
        log_p = predict(student, middle)
        x = middle.clone()
        x[middle == mask_id] = categorical(log_p.detach())
        steps.append(Step(middle, x, log_p))
    return steps


def log_odds_reward(scores: Tensor, z: Tensor, mask_id: int, clip: float = 8.0) -> Tensor:
    """Reward [B]: mean over the masked positions of z [B, L] of the clipped log-odds (0 if none is masked)."""
    masked = z == mask_id
    return torch.where(masked, scores.clamp(-clip, clip), 0.0).sum(-1) / masked.sum(-1).clamp(min=1)


def group_advantage(reward: Tensor, group: int, clip: float = 3.0, eps: float = 1e-4) -> Tensor:
    """Rewards [N * group] normalised inside each group of samples that share start, tau and t."""
    grouped = reward.view(-1, group)
    normalised = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + eps)
    return normalised.clamp(-clip, clip).view(-1)


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor, weight: Tensor) -> Tensor:
    """Scalar whose gradient estimates that of the weighted KL: -mean of w(t) * advantage * log p; all [B]."""
    return -(weight * advantage.detach() * log_prob).mean()


def jeffreys(log_p: Tensor, log_q: Tensor, beta: float = 0.5) -> Tensor:
    """beta KL(p || q) + (1 - beta) KL(q || p), mean over the distributions log_p, log_q [P, V]."""
    # The mask has log-probability minus infinity in both, and contributes nothing.
    difference = torch.where(torch.isinf(log_p), 0.0, log_p - log_q)
    divergence = ((beta * log_p.exp() - (1 - beta) * log_q.exp()) * difference).sum()
    return divergence / max(1, len(log_p))


def entropy(log_p: Tensor) -> Tensor:
    """Mean entropy (nats) of the distributions log_p [P, V]."""
    return -(log_p.exp() * torch.where(torch.isinf(log_p), 0.0, log_p)).sum() / max(1, len(log_p))


def discriminator_loss(scores: Tensor, z: Tensor, label: float, mask_id: int) -> Tensor:
    """Binary cross-entropy of scores [B, L] with one label, at the masked positions of z [B, L]."""
    at_masks = scores[z == mask_id]
    return F.binary_cross_entropy_with_logits(at_masks, torch.full_like(at_masks, label))
