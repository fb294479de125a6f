import json
import math

import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from conftest import randomised
from didi.backbone import BackboneConfig
from didi.graphs.causal import CachedDecoder, Fluency
from didi.graphs.trace import export_graph
from didi.causal import CausalLM, export_causal, graph_causal, load_causal, neox_config, next_token_nats
from didi.causal import sample_causal, to_neox


def causal_model() -> CausalLM:
    torch.manual_seed(5)
    config = BackboneConfig(vocab_size=11, hidden=16, blocks=2, heads=2, cond=8, context=12)
    return randomised(CausalLM(config))


@torch.no_grad()
def test_a_token_never_sees_what_follows():
    model = causal_model()
    x = torch.randint(0, 10, (2, 12), generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 10
    before, after = model(x), model(changed)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-6)
    assert not torch.allclose(before[:, 7:], after[:, 7:], atol=1e-3)


@torch.no_grad()
def test_nats_are_those_of_the_chain_rule():
    model = causal_model()
    x = torch.tensor([[3, 1, 4]])
    expected = []
    for i in range(3):
        log_p = torch.log_softmax(model(torch.tensor([[9, 3, 1, 4][: i + 1]]))[0, -1], dim=-1)
        expected.append(-log_p[x[0, i]])
    assert torch.allclose(next_token_nats(model, x, end_id=9)[0], torch.stack(expected), atol=1e-5)


@torch.no_grad()
def test_a_cached_decoder_says_what_the_whole_says(tmp_path):
    model = causal_model()
    graph = graph_causal(to_neox(model), model.config)
    export_causal(graph, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    decoder = CachedDecoder(graph)
    x = torch.randint(0, 10, (2, 9), generator=torch.Generator().manual_seed(1))
    whole = model(x)
    cache = {name: torch.zeros(2, 2, 0, 8).numpy() for name in decoder.cache_names("past_key_values")}
    done = 0
    for piece in x.split([4, 1, 3, 1], dim=1):
        total = done + piece.shape[1]
        inputs = {
            "input_ids": piece.numpy(),
            "attention_mask": torch.ones(2, total, dtype=torch.int64).numpy(),
            "position_ids": torch.arange(done, total).expand(2, -1).numpy(),
        }
        logits, *grown = session.run(None, inputs | cache)
        assert torch.allclose(torch.from_numpy(logits), whole[:, done:total], atol=1e-4)
        cache = dict(zip(cache, grown))
        done = total


@torch.no_grad()
def test_fluency_is_the_log_likelihood_and_of_masked_texts_an_estimate(tmp_path):
    model = causal_model()
    end, mask = 9, 10
    reward = Fluency(graph_causal(to_neox(model), model.config), end, mask)
    export_graph(reward, tmp_path / "fluency.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "fluency.onnx")
    whole, none = torch.tensor([3, 1, 4, 1, 5, 9]), torch.full((6,), mask)
    part, other = whole.clone(), torch.tensor([3, 1, mask, mask, 5, 9])
    part[3:] = mask
    tokens = torch.stack((whole, part, none, other))
    tokens = torch.cat((tokens, torch.randint(0, 9, (4, 2))), dim=1)  # padding
    (answer,) = session.run(None, {"tokens": tokens.numpy(), "length": torch.full((4,), 6).numpy()})
    nats = next_token_nats(model, whole[None], end)[0]
    assert abs(answer[0] + float(nats.sum())) < 1e-3
    assert abs(answer[1] + 6 * float(nats[:3].mean())) < 1e-3
    assert abs(answer[2] + 6 * math.log(11)) < 1e-3
    # Token 4 has no known predecessor; token 5 attends to what is known.
    keep = torch.tensor([1, 1, 1, 0, 0, 1]).bool() & torch.ones(6, 6, dtype=torch.bool).tril()
    before = torch.tensor([[end, 3, 1, mask, mask, 5]])
    logits = model.linear(model.extend(before, keep, torch.arange(6), None)[0])[0]
    log_p = torch.log_softmax(logits, dim=-1)
    expected = (log_p[0, 3] + log_p[1, 1] + log_p[5, 9]) / 3 * 6
    assert abs(answer[3] - float(expected)) < 1e-3


@torch.no_grad()
def test_padding_on_the_left_changes_nothing():
    model = causal_model()
    decoder = CachedDecoder(graph_causal(to_neox(model), model.config))
    x = torch.tensor([[9, 9, 3, 1, 4]])
    empty = [torch.zeros(1, 2, 0, 8)] * 4
    padded = decoder(x, torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[0, 0, 0, 1, 2]]), empty)[0]
    assert torch.allclose(padded[:, 2:], model(x[:, 2:]), atol=1e-5)


def test_a_continuation_at_temperature_0_takes_the_most_likely_tokens():
    model = causal_model()
    start = torch.tensor([[9, 3, 5], [9, 1, 1]])
    written = sample_causal(model, start, 3, temperature=0)
    for i in range(3):
        before = torch.cat((start, written[:, :i]), dim=1)
        with torch.no_grad():
            logits = model(before)[:, -1].index_fill(-1, torch.tensor([model.config.mask_id]), -torch.inf)
        assert torch.equal(written[:, i], logits.argmax(-1))


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_samples_follow_the_model(top_p):
    def drawn_from(logits):
        p = logits.index_fill(-1, torch.tensor([10]), -torch.inf).softmax(-1)
        for row in p.view(-1, 11):
            mass = 0.0
            for token in row.argsort(descending=True):
                mass, before = mass + float(row[token]), mass
                row[token] *= before < top_p
        return p / p.sum(-1, keepdim=True)

    model = causal_model()
    torch.manual_seed(0)
    n = 4000
    x = sample_causal(model, torch.full((n, 1), 9), 2, top_p=top_p)
    with torch.no_grad():
        first = drawn_from(model(torch.tensor([[9]]))[0, 0])
        second = drawn_from(model(torch.stack((torch.full((10,), 9), torch.arange(10)), 1))[:, 1])
    p = (first[:, None] * torch.cat((second, torch.zeros(1, 11))))[x[:, 0], x[:, 1]]
    assert (p > 0).all()
    expected = (first[:10, None] * second[:, :10]).flatten() * n
    counts = torch.bincount(x[:, 0] * 10 + x[:, 1], minlength=100)
    enough = expected >= 5
    statistic = float(((counts - expected) ** 2 / expected)[enough].sum())
    degrees = int(enough.sum())
    assert statistic < degrees + 3.1 * (2 * degrees) ** 0.5 + 5  # beyond p = 0.001


@torch.no_grad()
def test_an_exported_folder_loads_back(tmp_path):
    model = causal_model()
    save_file(to_neox(model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(neox_config(model.config, 9)))
    x = torch.arange(10)[None]
    assert torch.equal(load_causal(tmp_path)(x), model(x))
