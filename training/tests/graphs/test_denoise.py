"""The graph `denoise` against the backbone that it comes from."""

import numpy as np
import onnxruntime
import pytest
import torch

from conftest import assert_rows_equal_alone, make_inputs, randomised
from didi.backbone import Backbone, BackboneConfig
from didi.diffusion import subs
from didi.graphs.denoise import LIKELIEST, Denoise, cut
from didi.graphs.trace import export_graph
from didi.tools.oracle import draw


@pytest.fixture(scope="module")
def session(backbone, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "denoise.onnx"
    export_graph(Denoise(backbone), path)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def cut_in_float64(log_p: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Return the probabilities after top_k and top_p: the oracle of the graph's cut."""
    p = np.exp((log_p - log_p.max()) / temperature)
    likeliest = np.argsort(-p, kind="stable")
    if top_k:
        p[likeliest[top_k:]] = 0
    p /= p.sum()
    before = 0.0
    for rank, token in enumerate(likeliest):
        before, mass = before + p[token], before
        if rank and top_p < 1 and mass >= top_p:
            p[token] = 0
    return p / p.sum()


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_denoise_equals_pytorch(backbone, session, temperature):
    feeds = make_inputs(backbone.config.mask_id, temperature)
    token, logprob, entropy, top_token, top_logprob = session.run(None, feeds)
    with torch.no_grad():
        logits = backbone(torch.from_numpy(feeds["tokens"]), length=torch.from_numpy(feeds["length"]))
    log_p = subs(logits, backbone.config.mask_id)[feeds["picks"][:, 0], feeds["picks"][:, 1]]

    p = log_p.exp()
    expected_entropy = -(p * log_p.masked_fill(p == 0, 0)).sum(-1)
    np.testing.assert_allclose(entropy, expected_entropy.numpy(), atol=1e-4)
    likeliest = log_p.topk(3)
    assert (top_token == likeliest.indices.numpy()).all()
    np.testing.assert_allclose(top_logprob, likeliest.values.numpy(), atol=1e-4)
    compared = 0
    for s, pick in enumerate(feeds["draws"]):
        expected, margin = draw(log_p[pick], temperature, float(feeds["uniform"][s]))
        if margin < 1e-5:
            continue
        compared += 1
        assert token[s] == expected
        assert abs(logprob[s] - float(log_p[pick, expected])) < 1e-4
    assert compared > 0.95 * len(feeds["draws"])


@pytest.mark.parametrize("vocabulary", [61, 1300])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_top_k_and_top_p_equal_numpy(vocabulary, temperature, tmp_path):
    torch.manual_seed(3)
    config = BackboneConfig(vocab_size=vocabulary, hidden=32, blocks=1, heads=4, cond=16, context=64)
    backbone = randomised(Backbone(config))
    export_graph(Denoise(backbone), tmp_path / "denoise.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "denoise.onnx", providers=["CPUExecutionProvider"])
    feeds = make_inputs(backbone.config.mask_id, temperature)
    rng = np.random.default_rng(6)
    count = len(feeds["draws"])
    feeds["top_k"] = rng.choice([0, 1, 5, 200, 1100, 2000], count).astype(np.int64)
    feeds["top_p"] = rng.choice([1.0, 0.99, 0.9, 0.5, 0.01], count).astype(np.float32)
    token, logprob, *_ = session.run(None, feeds)
    with torch.no_grad():
        logits = backbone(torch.from_numpy(feeds["tokens"]), length=torch.from_numpy(feeds["length"]))
    log_p = subs(logits, backbone.config.mask_id)[feeds["picks"][:, 0], feeds["picks"][:, 1]].double().numpy()
    compared, kept = 0, []
    for s, pick in enumerate(feeds["draws"]):
        p = cut_in_float64(log_p[pick], temperature, int(feeds["top_k"][s]), float(feeds["top_p"][s]))
        assert p[token[s]] > 0
        cdf = p.cumsum()
        if abs(cdf - feeds["uniform"][s]).min() < 1e-5:
            continue
        compared += 1
        kept.append(np.count_nonzero(p))
        assert token[s] == int((cdf < feeds["uniform"][s]).sum())
        assert abs(logprob[s] - log_p[pick, token[s]]) < 1e-4
    assert compared > 0.9 * count
    # Cuts of all sizes that are looked for in different ways.
    at_most = [most for most in (*LIKELIEST, vocabulary - 1) if most < vocabulary]
    assert (np.histogram(kept, [1, *(most + 1 for most in at_most)])[0] > 0.05 * count).all()


def test_a_cut_has_the_same_bits_whatever_it_is_looked_for_among():
    torch.manual_seed(1)
    weights = (torch.randn(400, 500) * 3).exp()
    top_k, top_p = torch.randint(0, 60, (400,)), torch.rand(400)
    expected, whole = cut(weights, top_k, top_p, 500)
    assert whole.all()
    for among in (5, 20, 50):
        kept, whole = cut(weights, top_k, top_p, among)
        assert (kept[whole] == expected[whole]).all()
        assert whole.any() and (kept[~whole] != expected[~whole]).any()


def test_a_draw_that_is_not_cut_keeps_its_bits_beside_one_that_is(session, backbone):
    feeds = make_inputs(backbone.config.mask_id, 0.8)
    alone = session.run(None, feeds)
    feeds["top_p"][::2] = 0.3
    beside = session.run(None, feeds)
    assert (alone[0][1::2] == beside[0][1::2]).all() and (alone[1][1::2] == beside[1][1::2]).all()
    assert (alone[0][::2] != beside[0][::2]).any()


def test_padding_changes_nothing(backbone, session):
    feeds = make_inputs(backbone.config.mask_id, 1.0)
    noisy = dict(feeds, tokens=feeds["tokens"].copy())
    for row, length in enumerate(feeds["length"]):
        noisy["tokens"][row, length:] = 7
    for a, b in zip(session.run(None, feeds), session.run(None, noisy)):
        assert (a == b).all()


def test_a_row_does_not_depend_on_its_batch(backbone, session):
    # The vocabulary of 61 would leave rows unaligned if it were not padded.
    assert_rows_equal_alone(session, make_inputs(backbone.config.mask_id, 1.0))


def test_extreme_uniforms_never_draw_the_mask_or_an_impossible_token(backbone, session):
    for value in (2.0**-24, 1 - 2.0**-24):
        feeds = make_inputs(backbone.config.mask_id, 0.05)
        feeds["uniform"][:] = value
        token, logprob, *_ = session.run(None, feeds)
        assert token.max() < backbone.config.mask_id
        assert np.isfinite(logprob).all()
