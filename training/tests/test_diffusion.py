import numpy as np
import torch

from didi.diffusion import alpha, corrupt, low_discrepancy_times, nelbo, subs

V, MASK = 5, 4


def uniform_denoiser(tokens, where=None):
    logits = torch.zeros(*tokens.shape, V)
    return logits if where is None else logits[where]


def test_subs_never_gives_the_mask():
    log_p = subs(torch.randn(3, V), MASK)
    assert torch.isneginf(log_p[:, MASK]).all()
    assert torch.allclose(log_p.exp().sum(-1), torch.ones(3))


def test_corrupt_keeps_with_probability_alpha():
    x = torch.zeros(1, 200_000, dtype=torch.int64)
    z = corrupt(x, torch.tensor([0.3]), torch.rand(x.shape, generator=torch.Generator().manual_seed(0)), MASK)
    kept = float((z == 0).float().mean())
    assert abs(kept - alpha(0.3)) < 4 * (0.3 * 0.7 / 200_000) ** 0.5


def test_nelbo_of_a_uniform_model_is_log_of_its_choices():
    # Each token costs ln(V - 1) nats whatever t, so the ELBO's expectation is exactly that.
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(4000, 50, dtype=torch.int64)
    t = low_discrepancy_times(len(x), 0.5)
    loss = nelbo(uniform_denoiser, x, t, torch.rand(x.shape, generator=generator), MASK)
    assert abs(float(loss.mean()) / 50 - np.log(V - 1)) < 0.02


def test_times_fill_their_strata():
    t = low_discrepancy_times(10, 0.5)
    assert torch.equal((t * 10).floor().clamp(max=9), torch.arange(10.0))
