"""The formulas of the distillation on a problem small enough for exact answers: two tokens, two positions."""

import itertools

import pytest
import torch
from torch import Tensor

from conftest import randomised
from didi.backbone import Backbone, BackboneConfig
from didi.diffusion import alpha, corrupt, grid, subs
from didi.learn.policy import branch, entropy, group_advantage, jeffreys
from didi.learn.policy import log_odds_reward, policy_gradient_loss, predict, rollout

MASK, L = 2, 2
TEXTS = torch.tensor(list(itertools.product(range(2), repeat=L)))
STATES = torch.tensor(list(itertools.product(range(3), repeat=L)))


def tiny_backbone(seed: int) -> Backbone:
    torch.manual_seed(seed)
    return randomised(Backbone(BackboneConfig(vocab_size=3, hidden=16, blocks=2, heads=2, cond=8, context=4)))


def corruption(t: float) -> Tensor:
    """Return q(z_t | x) as a matrix [texts, states]."""
    keep = alpha(t)
    rows = []
    for x in TEXTS:
        chances = torch.where(STATES == MASK, 1 - keep, torch.where(STATES == x, keep, 0.0))
        rows.append(chances.prod(dim=1))
    return torch.stack(rows)


def step_probability(log_p: Tensor, before: Tensor, after: Tensor) -> Tensor:
    revealed = before != after
    return log_p[revealed].gather(-1, after[revealed][:, None]).sum().exp()


def two_step_distribution(model: Backbone, tau: float) -> Tensor:
    """Return the exact distribution [texts] of a two-step generation through time tau, differentiable."""
    start = torch.full((L,), MASK)
    stay = (1 - alpha(tau)) / (1 - alpha(1.0))
    first = subs(model(start[None]), MASK)[0]
    total = torch.zeros(len(TEXTS))
    for middle in STATES:
        shown = int((middle != MASK).sum())
        chance = (1 - stay) ** shown * stay ** (L - shown) * step_probability(first, start, middle)
        second = subs(model(middle[None]), MASK)[0]
        fits = [bool(((middle == MASK) | (middle == x)).all()) for x in TEXTS]
        reached = [step_probability(second, middle, x) * fit for x, fit in zip(TEXTS, fits)]
        total = total + chance * torch.stack(reached)
    return total


def exact_kl(student_x: Tensor, teacher_x: Tensor, t: float) -> Tensor:
    q = corruption(t)
    student_z, teacher_z = student_x @ q, teacher_x @ q
    return (student_z * (student_z.log() - teacher_z.log())).sum()


def teacher_distribution(model: Backbone) -> Tensor:
    """Return the limit of many steps [texts]: one position at a time, in either order."""
    start = torch.full((L,), MASK)
    first = subs(model(start[None]), MASK)[0].exp()
    total = torch.zeros(len(TEXTS))
    for position in range(L):
        for token in range(2):
            middle = start.clone()
            middle[position] = token
            second = subs(model(middle[None]), MASK)[0].exp()
            for i, x in enumerate(TEXTS):
                if x[position] == token:
                    total[i] += 0.5 * first[position, token] * second[1 - position, x[1 - position]]
    return total


def test_rewards_divergence_and_advantages():
    z = torch.tensor([[MASK, 0], [MASK, MASK], [1, 0]])
    scores = torch.tensor([[2.0, 99.0], [100.0, -4.0], [5.0, 5.0]])
    assert torch.equal(log_odds_reward(scores, z, MASK), torch.tensor([[2.0], [2.0], [0.0]]))
    near = torch.tensor([[2.0, 0.0], [8.0, -4.0], [0.0, 0.0]])
    assert torch.equal(log_odds_reward(scores, z, MASK, reach=0), near)
    far = log_odds_reward(scores, z, MASK, reach=L)
    assert torch.equal(far, log_odds_reward(scores, z, MASK).expand(3, L))

    advantage = group_advantage(torch.tensor([1.0, 3.0, 5.0, 5.0])[:, None], 2)
    assert torch.allclose(advantage, torch.tensor([-0.7071, 0.7071, 0.0, 0.0])[:, None], atol=1e-3)
    # Of two positions, the one where nothing differs stays at 0, and the spread is that of the group.
    advantage = group_advantage(torch.tensor([[1.0, 4.0], [3.0, 4.0]]), 2)
    assert torch.allclose(advantage, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), atol=1e-3)

    normal = lambda seed: torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    p, q = (torch.log_softmax(normal(seed), -1) for seed in (0, 1))
    kl = lambda a, b: (a.exp() * (a - b)).sum(-1)  # noqa: E731
    assert torch.allclose(jeffreys(p, q, 0.3), (0.3 * kl(p, q) + 0.7 * kl(q, p)).mean(), atol=1e-6)
    assert float(jeffreys(p, p)) == 0
    assert torch.allclose(entropy(p), torch.distributions.Categorical(logits=p).entropy().mean(), atol=1e-6)


@torch.no_grad()
def test_a_step_s_log_probability_is_that_of_what_it_revealed():
    student = tiny_backbone(1)
    torch.manual_seed(0)
    steps = rollout(student, torch.linspace(0.1, 0.9, 6), torch.rand(6, 4))
    steps.append(branch(student, 4, 3, torch.rand(8, 4))[0])
    assert [step.after.shape for step in steps] == [(1, 6, 4), (6, 1, 4), (8, 3, 4)]
    for step in steps:
        assert torch.allclose(step.log_p, predict(student, step.before))
        log_p = subs(student(step.before), MASK)
        expected = [
            step_probability(log_p[i], before, after).log()
            for i, before in enumerate(step.before)
            for after in step.after[i]
        ]
        assert torch.allclose(step.log_prob().sum(-1), torch.stack(expected), atol=1e-5)
    assert not (steps[1].after == MASK).any()


@torch.no_grad()
def test_a_branch_stops_where_its_step_ends():
    student, steps, n = tiny_backbone(1), 4, 400
    torch.manual_seed(0)
    uniform = torch.rand(n, 4)
    step, ends = branch(student, steps, 2, uniform)
    assert torch.allclose(ends[:steps], torch.tensor(grid(steps)[1:]))
    for k in range(steps):
        before, after = step.before[k::steps], step.after[k::steps]
        u = uniform[k::steps]
        assert torch.equal(before == MASK, u < 1 - k / steps)
        assert torch.equal(after == MASK, (u < 1 - (k + 1) / steps)[:, None].expand_as(after))
        # What was shown before stays.
        assert torch.equal(torch.where(before == MASK, MASK, after[:, 0]), before)


@torch.no_grad()
def test_a_step_before_a_branch_may_reveal_nothing():
    uniform = torch.full((2, 4), 0.1)  # revealed by the last step
    step, _ = branch(tiny_backbone(1), 2, 3, uniform)
    assert (step.before == MASK).all()
    assert (step.after[0] == MASK).all() and not (step.after[1] == MASK).any()


def test_two_step_distribution_is_one_and_rollouts_follow_it():
    student = tiny_backbone(1)
    exact = two_step_distribution(student, 0.6).detach()
    assert abs(float(exact.sum()) - 1) < 1e-5
    torch.manual_seed(0)
    n = 20_000
    x = rollout(student, torch.full((n,), 0.6), torch.rand(n, L))[-1].after.flatten(0, 1)
    counts = torch.bincount(x[:, 0] * 2 + x[:, 1], minlength=4)
    assert float(((counts - n * exact) ** 2 / (n * exact)).sum()) < 16.27  # 3 degrees of freedom, p = 0.001


@pytest.mark.parametrize("tau,t", [(0.5, 0.5), (0.8, 0.2)])
def test_the_gradient_estimate_agrees_with_the_exact_gradient(tau, t):
    student = tiny_backbone(1)
    teacher_x = teacher_distribution(tiny_backbone(2)).detach()
    parameters = [p for p in student.parameters() if p.requires_grad]

    def flat_gradient(loss: Tensor) -> Tensor:
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = (torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads))
        return torch.cat([gradient.flatten() for gradient in filled])

    student_x = two_step_distribution(student, tau)
    exact = flat_gradient(exact_kl(student_x, teacher_x, t))
    q = corruption(t)
    log_ratio = (teacher_x @ q).log() - (student_x.detach() @ q).log()

    torch.manual_seed(4)
    batches, size = 60, 500
    estimates = []
    for _ in range(batches):
        steps = rollout(student, torch.full((size,), tau), torch.rand(size, L))
        z = corrupt(steps[-1].after.flatten(0, 1), torch.full((size,), t), torch.rand(size, L), MASK)
        log_prob = steps[0].log_prob() + steps[1].log_prob()
        reward = log_ratio[z[:, 0] * 3 + z[:, 1]]
        estimates.append(flat_gradient(policy_gradient_loss(log_prob, reward[:, None], torch.ones(size))))
    estimates = torch.stack(estimates)
    # Along the exact gradient, and along directions of no meaning: parameters one by one are too correlated
    # for a count of z-scores to mean anything.
    directions = torch.cat((exact[None], torch.randn(7, len(exact))))
    along = estimates @ directions.T
    error = along.std(0) / batches**0.5
    assert float(((along.mean(0) - directions @ exact) / error).abs().max()) < 3.2  # 8 normals: p = 0.01
    # The estimate is no mere noise: the exact gradient is many standard errors from zero.
    assert float(directions[0] @ exact / error[0]) > 10
