"""The formulas of DiDi-Instruct (arXiv 2509.25035, section 4): rollouts, rewards, policy gradient,
regularisers.

The objective is the integral over t of w(t) KL(student's z_t || teacher's z_t). By the score-function
identity its gradient is that of -E[w(t) R log p(trajectory)], where R = log q_teacher(z_t) / q_student(z_t).
A discriminator between the two estimates R.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbone import Backbone
from ..diffusion import alpha, categorical, grid, subs


@dataclass
class Step:
    """One step of samples: from each canvas of `before` [N, L] to its G continuations `after` [N, G, L].

    `log_p` [P, V] is the model's p(x0 | before) at the masked positions of `before`, row by row.
    """

    before: Tensor
    after: Tensor
    log_p: Tensor

    def log_prob(self) -> Tensor:
        """Return the log-probability [N * G, L] of each token that the step revealed, and 0 elsewhere."""
        mask_id = self.log_p.shape[1] - 1
        masked = self.before == mask_id
        place = torch.zeros_like(self.before).masked_scatter(masked, torch.arange(len(self.log_p)))
        revealed = masked[:, None] & (self.after != mask_id)
        chosen = self.log_p[place[:, None].expand_as(self.after)[revealed], self.after[revealed]]
        return torch.zeros(self.after.shape).masked_scatter(revealed, chosen).flatten(0, 1)


def take_step(log_p: Tensor, before: Tensor, shown: Tensor) -> Step:
    """Draw tokens at the positions `shown` [N, G, L] of `before` [N, L] from log_p [P, V]."""
    masked = before == log_p.shape[1] - 1
    place = torch.zeros_like(before).masked_scatter(masked, torch.arange(len(log_p)))
    after = before[:, None].expand(shown.shape).clone()
    after[shown] = categorical(log_p.detach()[place[:, None].expand(shown.shape)[shown]])
    return Step(before, after, log_p)


def predict(model: Backbone, canvas: Tensor) -> Tensor:
    """Return log p(x0 | canvas) [P, V] at the masked positions of canvas [B, L], under SUBS."""
    mask_id = model.config.mask_id
    return subs(model(canvas, where=canvas == mask_id), mask_id)


def rollout(student: Backbone, tau: Tensor | None, uniform: Tensor) -> list[Step]:
    """Generate from all masks through the state at time tau [B] to text: intermediate-state matching.

    Without tau, generate in one step. `uniform` [B, L] decides what the state at tau reveals. The steps keep
    their autograd graph, which the policy gradient goes through.
    """
    mask_id = student.config.mask_id
    start = torch.full((1, uniform.shape[1]), mask_id)
    shown = torch.ones_like(uniform, dtype=torch.bool)
    if tau is not None:
        shown = uniform >= ((1 - alpha(tau)) / (1 - alpha(1.0)))[:, None]
    steps = [take_step(predict(student, start), start, shown[None])]
    if tau is not None:
        middle = steps[0].after[0]
        steps.append(take_step(predict(student, middle), middle, (middle == mask_id)[:, None]))
    return steps


def mask_chances(steps: int) -> Tensor:
    """Return the chance [steps + 1] that a position is masked after each number of steps; 0 after the last.

    A position is revealed when this falls below the position's uniform.
    """
    return torch.cat(((1 - alpha(torch.tensor(grid(steps)[:-1]))) / (1 - alpha(1.0)), torch.zeros(1)))


def own_states(student: Backbone, steps: int, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return states [N, L] of generation in `steps` steps, and the number [N] of steps done.

    Row i of `uniform` [N, L], which decides when each position is revealed, has done i mod `steps`.
    """
    mask_id, chance = student.config.mask_id, mask_chances(steps)
    at = torch.arange(len(uniform)) % steps
    z = torch.full(uniform.shape, mask_id)
    for k in range(steps - 1):
        shown = (z == mask_id) & (uniform >= chance[k + 1]) & (at > k)[:, None]
        rows = shown.any(1)
        if not rows.any():
            continue
        with torch.no_grad():
            z[shown] = categorical(subs(student(z[rows], where=shown[rows]), mask_id))
    return z, at


def branch(student: Backbone, steps: int, branches: int, uniform: Tensor) -> tuple[Step, Tensor]:
    """Generate in `steps` steps, and do one step of each sample in `branches` ways.

    Row i branches before step i mod `steps` (`own_states`). Return the step with its autograd graph, and the
    time [N] at which it ends.
    """
    z, at = own_states(student, steps, uniform)
    shown = (z == student.config.mask_id) & (uniform >= mask_chances(steps)[at + 1][:, None])
    step = take_step(predict(student, z), z, shown[:, None].expand(-1, branches, -1))
    return step, torch.tensor(grid(steps))[at + 1]


def log_odds_reward(
    scores: Tensor, z: Tensor, mask_id: int, reach: int | None = None, clip: float = 8.0
) -> Tensor:
    """Return the reward [B, 1]: the mean of the clipped log-odds over masked positions of z [B, L]; 0 without
    masks.

    With `reach`, return a reward for each position [B, L]: the mean over masked positions at most that far
    away.
    """
    masked = z == mask_id
    total, count = torch.where(masked, scores.clamp(-clip, clip), 0.0), masked.to(scores.dtype)
    if reach is None:
        total, count = total.sum(-1, keepdim=True), count.sum(-1, keepdim=True)
    else:
        total, count = (F.pad(v, (reach, reach)).unfold(-1, 2 * reach + 1, 1).sum(-1) for v in (total, count))
    return total / count.clamp(min=1)


def group_advantage(reward: Tensor, group: int, clip: float = 3.0, eps: float = 1e-4) -> Tensor:
    """Normalise rewards [N * group, K] inside each group of samples that share start, tau and t.

    Each of the K rewards is centred on its own mean. A group has one spread for all K, so that a reward that
    hardly differs inside the group stays small. Clip to +-clip.
    """
    grouped = reward.unflatten(0, (-1, group))
    centred = grouped - grouped.mean(1, keepdim=True)
    spread = (centred.square().sum(1, keepdim=True) / (group - 1)).mean(2, keepdim=True).sqrt()
    return (centred / (spread + eps)).clamp(-clip, clip).flatten(0, 1)


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor, weight: Tensor) -> Tensor:
    """Return -mean of w(t) sum(advantage * log p), whose gradient estimates that of the weighted KL.

    `log_prob` is [B, L], `advantage` [B, 1] or [B, L], `weight` w(t) [B].
    """
    return -(weight * (advantage.detach() * log_prob).sum(-1)).mean()


def jeffreys(log_p: Tensor, log_q: Tensor, beta: float = 0.5) -> Tensor:
    """Return the mean of beta KL(p || q) + (1 - beta) KL(q || p) over distributions log_p, log_q [P, V]."""
    # The mask has log-probability minus infinity in both, and contributes nothing.
    difference = torch.where(torch.isinf(log_p), 0.0, log_p - log_q)
    divergence = ((beta * log_p.exp() - (1 - beta) * log_q.exp()) * difference).sum()
    return divergence / max(1, len(log_p))


def entropy(log_p: Tensor) -> Tensor:
    """Return the mean entropy (nats) of the distributions log_p [P, V]."""
    return -(log_p.exp() * torch.where(torch.isinf(log_p), 0.0, log_p)).sum() / max(1, len(log_p))


def label_loss(log_odds: Tensor, label: float) -> Tensor:
    """Return the mean binary cross-entropy of log-odds with one label in [0, 1]."""
    return F.binary_cross_entropy_with_logits(log_odds, torch.full_like(log_odds, label))
