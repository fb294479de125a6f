"""The guidance graphs against autograd and against the plain discriminator."""

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from conftest import discriminator_of
from didi.diffusion import subs
from didi.graphs.guided import GraphDiscriminator, Score, Tilt
from didi.graphs.trace import export_graph
from didi.guidance import Discriminator


@pytest.fixture
def discriminator(backbone) -> Discriminator:
    torch.manual_seed(8)
    return discriminator_of(backbone)


def canvases(mask_id: int, B: int = 3, L: int = 20):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, mask_id, (B, L), generator=generator)
    tokens[torch.rand(B, L, generator=generator) < 0.5] = mask_id
    return tokens, torch.tensor([20, 13, 17])[:B]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_scores_are_those_of_the_discriminator(backbone, discriminator):
    tokens, _ = canvases(backbone.config.mask_id)
    folded = GraphDiscriminator(discriminator)
    x = F.embedding(tokens, folded.trunk.embedding)
    full = torch.full((len(tokens),), tokens.shape[1])
    with torch.no_grad():
        assert relative(folded.scores(x, folded.trunk.places(tokens, full)), discriminator(tokens)) < 1e-5


def test_reward_sums_the_canvas_and_ignores_padding(backbone, discriminator):
    tokens, length = canvases(backbone.config.mask_id)
    score = Score(discriminator)
    rewards = score(tokens, length)
    with torch.no_grad():
        for row, n in enumerate(length):
            assert torch.allclose(rewards[row], discriminator(tokens[row : row + 1, :n]).sum(), atol=1e-4)


def test_the_vector_jacobian_product_equals_autograd(backbone, discriminator):
    tokens, length = canvases(backbone.config.mask_id)
    folded = GraphDiscriminator(discriminator)
    bias = folded.trunk.places(tokens, length)
    masked = (tokens == backbone.config.mask_id) & (torch.arange(tokens.shape[1])[None] < length[:, None])
    x = torch.randn(*tokens.shape, 32, generator=torch.Generator().manual_seed(2), requires_grad=True)
    expected_reward = (folded.scores(x, bias) * masked).sum(-1)
    (expected,) = torch.autograd.grad(expected_reward.sum(), x)
    reward, gradient = folded.reward_and_gradient(x.detach(), bias, masked)
    assert relative(reward, expected_reward.detach()) < 1e-5
    assert relative(gradient, expected) < 1e-4


def test_tilting_follows_the_gradient_to_log_p(backbone, discriminator):
    mask_id = backbone.config.mask_id
    tokens, length = canvases(mask_id)
    masks = [(tokens[b, : length[b]] == mask_id).nonzero()[:3, 0] for b in range(3)]
    picks = torch.tensor([[b, int(i)] for b in range(3) for i in masks[b]])
    scale = torch.tensor([30.0, 0.0, 7.0])
    own, tilted, reward = Tilt(backbone, discriminator).tilt(tokens, length, picks, scale)

    with torch.no_grad():
        log_p = subs(backbone(tokens, length=length), mask_id)
    log_p.requires_grad_(True)
    masked = (tokens == mask_id) & (torch.arange(tokens.shape[1])[None] < length[:, None])
    folded = GraphDiscriminator(discriminator)
    soft = torch.softmax(log_p, -1) @ folded.trunk.embedding[: backbone.config.vocab_size]
    canvas = torch.where(masked[..., None], soft, F.embedding(tokens, folded.trunk.embedding))
    r = (folded.scores(canvas, folded.trunk.places(tokens, length)) * masked).sum(-1)
    (g,) = torch.autograd.grad(r.sum(), log_p)
    row, position = picks.T
    expected = torch.log_softmax(log_p + scale[:, None, None] * g.clamp(-1, 1), -1)[row, position].detach()

    V = backbone.config.vocab_size - 1
    assert relative(reward, r.detach()) < 1e-4
    assert torch.allclose(own[:, :V].exp(), log_p[row, position, :V].exp().detach(), atol=1e-5)
    assert torch.allclose(tilted[:, :V].exp(), expected[:, :V].exp(), atol=1e-4)
    assert float(tilted[:, V:].exp().sum()) == 0
    # Row 1 has scale 0: its distribution is the student's own.
    assert torch.allclose(tilted[row == 1], own[row == 1], atol=1e-5)
    assert not torch.allclose(tilted[row == 0][:, :V].exp(), own[row == 0][:, :V].exp(), atol=1e-4)


@pytest.mark.parametrize("name", ["tilt", "score"])
def test_the_exported_graph_equals_pytorch(backbone, discriminator, tmp_path, name):
    graph = Tilt(backbone, discriminator) if name == "tilt" else Score(discriminator)
    export_graph(graph, tmp_path / "graph.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "graph.onnx"), providers=["CPUExecutionProvider"])
    tokens, length = canvases(backbone.config.mask_id)
    feeds = {"tokens": tokens, "length": length}
    if name == "tilt":
        picks = torch.tensor([[0, 1], [0, 2], [1, 5], [2, 9]])
        draws = torch.tensor([0, 1, 1, 2, 3, 3])
        feeds |= {
            "picks": picks,
            "draws": draws,
            "uniform": torch.rand(6),
            "temperature": torch.full((6,), 0.8),
        }
        feeds["top_k"] = torch.tensor([0, 3, 0, 1, 0, 2])
        feeds["top_p"] = torch.tensor([1.0, 1.0, 0.5, 1.0, 0.9, 1.0])
        feeds["alternatives"] = torch.zeros(2, dtype=torch.int64)
        feeds["scale"] = torch.tensor([30.0, 40.0, 5.0])
    expected = graph(*(feeds[key] for key in graph.inputs))
    expected = expected if isinstance(expected, tuple) else (expected,)
    actual = session.run(None, {key: value.numpy() for key, value in feeds.items()})
    for a, b, output in zip(actual, expected, graph.OUTPUTS):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-4, err_msg=output)
