"""The guided sampler for measurements, on canvases small enough to enumerate."""

import pytest
import torch

from didi.diffusion import ALPHA_MIN, grid, sample_plain, stay_probability, subs
from didi.guidance import Guidance, rerank, sample_guided, tilted

MASK, L = 3, 2
PUBLISHED = Guidance()


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_published_schedule():
    assert [PUBLISHED.tilted_steps(n) for n in (1, 2, 7, 8)] == [0, 1, 3, 4]
    assert [PUBLISHED.scale(i, 8) for i in range(4)] == pytest.approx([30, 30 + 10 / 3, 30 + 20 / 3, 40])
    assert PUBLISHED.scale(0, 2) == 30
    times = grid(4)
    stays = [stay_probability(times, i) for i in range(5)]
    assert stays[4] == 0
    assert stays[0] * stays[1] * stays[2] * stays[3] == pytest.approx(1e-5, rel=1e-3)
    assert 1 - stays[0] == pytest.approx(0.25, rel=1e-3) and ALPHA_MIN < 0.01


@torch.no_grad()
def test_the_tilt_is_the_clipped_gradient_times_the_scale(pair):
    student, discriminator = pair
    z = torch.tensor([[MASK, 1], [MASK, MASK]])
    masked = z == MASK
    log_p = subs(student(z, where=masked), MASK)
    embedding = discriminator.trunk.vocab_embed.embedding

    def reward(log_p: torch.Tensor) -> float:
        canvas = embedding[z].clone()
        canvas[masked] = torch.softmax(log_p, -1).double().float() @ embedding
        return float(discriminator.scores(canvas)[masked].sum())

    got, _ = tilted(log_p, z, discriminator, scale=0.5)
    step = 1e-2
    for p, v in [(0, 0), (1, 2), (2, 1)]:
        up, down = log_p.clone(), log_p.clone()
        up[p, v] += step
        down[p, v] -= step
        numeric = (reward(up) - reward(down)) / (2 * step)
        # The normaliser is shared by a row: compare against a token whose own gradient is known too.
        other = (v + 1) % 3
        up, down = log_p.clone(), log_p.clone()
        up[p, other] += step
        down[p, other] -= step
        reference = (reward(up) - reward(down)) / (2 * step)
        change = (got[p, v] - log_p[p, v]) - (got[p, other] - log_p[p, other])
        assert float(change) == pytest.approx(0.5 * (numeric - reference), abs=2e-3)
    clipped, _ = tilted(log_p, z, discriminator, scale=0.5, clip=1e-6)
    assert torch.allclose(clipped, log_p, atol=2e-6)


@torch.no_grad()
def test_reranking_draws_by_the_softmax_of_rewards(pair):
    _, discriminator = pair
    candidates = torch.tensor([[0, 0], [1, 2], [2, 1]])
    expected = torch.softmax(discriminator(candidates).sum(-1), 0)
    assert float(expected.max()) < 0.9
    torch.manual_seed(1)
    n = 6000
    chosen = rerank(candidates.expand(n, 3, 2), discriminator)
    counts = torch.stack([(chosen == c).all(-1).sum() for c in candidates])
    assert chi_square(counts, expected * n) < 13.8  # 2 degrees of freedom, p = 0.001


@torch.no_grad()
def test_a_single_reranked_step_has_the_exact_distribution(pair):
    student, discriminator = pair
    torch.manual_seed(3)
    n = 20_000
    # One step: no tilting; two candidates, all of whose positions are revealed but for a chance of 1e-5.
    guidance = Guidance(candidates=2)
    x = sample_guided(student, discriminator, guidance, torch.full((n, L), MASK), steps=1)
    log_p = subs(student(torch.full((1, L), MASK))[0], MASK)
    texts = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    prior = (log_p[0][texts[:, 0]] + log_p[1][texts[:, 1]]).exp()
    reward = discriminator(texts).sum(-1)
    both = torch.stack((reward[:, None].expand(9, 9), reward[None].expand(9, 9)), -1)
    choice = torch.softmax(both, -1)[..., 0]
    pairs = prior[:, None] * prior[None]
    expected = (pairs * choice).sum(1) + (pairs * (1 - choice)).sum(0)
    counts = torch.bincount(x[:, 0] * 3 + x[:, 1], minlength=9)
    assert chi_square(counts, expected * n) < 26.1  # 8 degrees of freedom, p = 0.001


@torch.no_grad()
def test_without_guidance_it_is_the_plain_sampler(pair):
    student, discriminator = pair
    off = Guidance(candidates=1, scale_start=0, scale_end=0)
    canvas = torch.full((8000, L), MASK)
    canvas[:, 0] = 1  # a prompt stays
    torch.manual_seed(4)
    guided = sample_guided(student, discriminator, off, canvas, steps=4)
    plain = sample_plain(student, canvas, 4, MASK)
    assert (guided[:, 0] == 1).all() and not (guided == MASK).any()
    a, b = (torch.bincount(x[:, 1], minlength=3) for x in (guided, plain))
    assert float(((a - b) ** 2 / (a + b)).sum()) < 13.8  # two samples, 2 degrees of freedom, p = 0.001
