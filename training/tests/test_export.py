"""The exported graph against the backbone it came from."""

import copy
import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from didi.calibration import calibration_windows
from didi.diffusion import draw, subs
from didi.discriminator import Discriminator, load_published_state, published_state
from didi.export import export_graph, load_backbone, save_discriminator, save_weights, to_model, write_model_folder
from didi.graphs import Denoise
from didi.guided import Score, Tilt
from didi.quantize import PERCENTILES, activation_ranges, products, quantise, window_nelbo
from didi.stored import StoredTensors, origins, store_once
from safetensors.torch import load_file
from tokenizers import Tokenizer, models


@pytest.fixture(scope="module")
def session(backbone, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "denoise.onnx"
    export_graph(Denoise(backbone), path)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def make_inputs(mask_id: int, temperature: float, B: int = 3, L: int = 40):
    rng = np.random.default_rng(5)
    lengths = np.array([40, 17, 29])[:B]
    tokens = rng.integers(0, mask_id, (B, L))
    tokens[rng.random((B, L)) < 0.5] = mask_id
    picks = np.array([(row, i) for row in range(B) for i in range(lengths[row]) if tokens[row, i] == mask_id])
    draws = np.repeat(np.arange(len(picks)), 4)
    return {
        "tokens": tokens.astype(np.int64),
        "length": lengths.astype(np.int64),
        "picks": picks.astype(np.int64),
        "draws": draws.astype(np.int64),
        "uniform": rng.random(len(draws), dtype=np.float32),
        "temperature": np.full(len(draws), temperature, dtype=np.float32),
        "top_k": np.zeros(len(draws), dtype=np.int64),
        "top_p": np.ones(len(draws), dtype=np.float32),
    }


def cut(log_p: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The oracle of top_k and top_p: the probabilities that a draw is made from, in float64."""
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
    token, logprob, entropy = session.run(None, feeds)
    with torch.no_grad():
        logits = backbone(torch.from_numpy(feeds["tokens"]), length=torch.from_numpy(feeds["length"]))
    log_p = subs(logits, backbone.config.mask_id)[feeds["picks"][:, 0], feeds["picks"][:, 1]]

    p = log_p.exp()
    expected_entropy = -(p * log_p.masked_fill(p == 0, 0)).sum(-1)
    np.testing.assert_allclose(entropy, expected_entropy.numpy(), atol=1e-4)
    compared = 0
    for s, pick in enumerate(feeds["draws"]):
        expected, margin = draw(log_p[pick], temperature, float(feeds["uniform"][s]))
        if margin < 1e-5:
            continue
        compared += 1
        assert token[s] == expected
        assert abs(logprob[s] - float(log_p[pick, expected])) < 1e-4
    assert compared > 0.95 * len(feeds["draws"])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_top_k_and_top_p_equal_numpy(backbone, session, temperature):
    feeds = make_inputs(backbone.config.mask_id, temperature)
    rng = np.random.default_rng(6)
    count = len(feeds["draws"])
    feeds["top_k"] = rng.choice([0, 1, 2, 5, 1000], count).astype(np.int64)
    feeds["top_p"] = rng.choice([1.0, 0.9, 0.5, 0.01], count).astype(np.float32)
    token, logprob, _ = session.run(None, feeds)
    with torch.no_grad():
        logits = backbone(torch.from_numpy(feeds["tokens"]), length=torch.from_numpy(feeds["length"]))
    log_p = subs(logits, backbone.config.mask_id)[feeds["picks"][:, 0], feeds["picks"][:, 1]].double().numpy()
    compared = changed = 0
    for s, pick in enumerate(feeds["draws"]):
        p = cut(log_p[pick], temperature, int(feeds["top_k"][s]), float(feeds["top_p"][s]))
        assert p[token[s]] > 0
        cdf = p.cumsum()
        if abs(cdf - feeds["uniform"][s]).min() < 1e-4:
            continue
        compared += 1
        changed += (p == 0).any()
        assert token[s] == int((cdf < feeds["uniform"][s]).sum())
        assert abs(logprob[s] - log_p[pick, token[s]]) < 1e-4
    assert compared > 0.9 * count and changed > 0.5 * count


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
    feeds = make_inputs(backbone.config.mask_id, 1.0)
    together = session.run(None, feeds)
    own = feeds["picks"][:, 0] == 1  # the vocabulary of 61 would leave its rows unaligned
    own_draws = own[feeds["draws"]]
    alone = session.run(
        None,
        {
            "tokens": feeds["tokens"][1:2],
            "length": feeds["length"][1:2],
            "picks": feeds["picks"][own] * [0, 1],
            "draws": feeds["draws"][own_draws] - feeds["draws"][own_draws].min(),
            "uniform": feeds["uniform"][own_draws],
            **{name: feeds[name][own_draws] for name in ("temperature", "top_k", "top_p")},
        },
    )
    assert (alone[0] == together[0][own_draws]).all()
    assert (alone[1] == together[1][own_draws]).all()
    assert (alone[2] == together[2][own]).all()


def test_extreme_uniforms_never_draw_the_mask_or_an_impossible_token(backbone, session):
    for value in (2.0**-24, 1 - 2.0**-24):
        feeds = make_inputs(backbone.config.mask_id, 0.05)
        feeds["uniform"][:] = value
        token, logprob, _ = session.run(None, feeds)
        assert token.max() < backbone.config.mask_id
        assert np.isfinite(logprob).all()


def test_weights_come_back_from_their_file(backbone, tmp_path):
    save_weights(backbone, tmp_path / "weights.safetensors")
    loaded = load_backbone(tmp_path / "weights.safetensors")
    assert loaded.config == backbone.config
    for name, tensor in backbone.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-6), name


def test_a_discriminator_comes_back_from_its_file(backbone, tmp_path):
    torch.manual_seed(1)
    discriminator, other = Discriminator(backbone).eval(), Discriminator(backbone).eval()
    save_discriminator(discriminator, tmp_path / "discriminator.safetensors")
    load_published_state(other, load_file(tmp_path / "discriminator.safetensors"))
    for name, tensor in published_state(discriminator).items():
        assert torch.allclose(published_state(other)[name], tensor, rtol=1e-3, atol=1e-6), name
    tokens = torch.randint(0, 60, (1, 9))
    assert torch.allclose(other(tokens), discriminator(tokens), rtol=1e-2)


def test_a_model_folder_names_its_files_and_fits_its_tokenizer(backbone, tmp_path):
    """No note of the exporter names a path of this machine."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    about = {"name": "small", "description": "A test.", "licence": "MIT", "backbone": copy.deepcopy(backbone)}
    with pytest.raises(ValueError, match="no token <.endoftext.>"):
        write_model_folder(tmp_path, **about)
    tokenizer.add_special_tokens(["<|endoftext|>", *(f"<{i}>" for i in range(60))])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="id 61, outside the model's vocabulary of 61"):
        write_model_folder(tmp_path, **about)
    Tokenizer.from_str(tokenizer.to_str().replace("<59>", "<58>")).save(str(tmp_path / "tokenizer.json"))

    quality = [{"sampler": "plain", "steps": 8, "generative_perplexity": 50.0, "entropy": 5.0}]
    write_model_folder(tmp_path, **about, quality=quality)
    manifest = json.loads((tmp_path / "model.json").read_text())
    assert manifest["quality"] == quality and "guidance" not in manifest
    files = (manifest["tokenizer"], manifest["weights"], manifest["graphs"]["denoise"]["fp32"])
    for entry in files:
        data = (tmp_path / entry["file"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["bytes"])
    graph = (tmp_path / "denoise.fp32.onnx").read_bytes()
    assert b"stack_trace" not in graph and b"graphs.py" not in graph


def folder_with_tokenizer(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return {"name": "small", "description": "A test.", "licence": "MIT"}


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
def test_graphs_make_their_matrices_of_the_weights_to_the_bit(backbone, tmp_path, weights):
    about = folder_with_tokenizer(tmp_path)
    torch.manual_seed(8)
    network, discriminator = copy.deepcopy(backbone), Discriminator(backbone).eval()
    write_model_folder(tmp_path, **about, backbone=network, discriminator=discriminator, weights=weights)
    # Rounded in place, if the weights are stored in half.
    whole = {"denoise": Denoise(network), "score": Score(discriminator), "tilt": Tilt(network, discriminator)}
    for name, graph in whole.items():
        export_graph(graph, tmp_path / "whole.onnx")
        feeds = make_inputs(backbone.config.mask_id, 1.0) | {"scale": np.full(3, 20, dtype=np.float32)}
        feeds = {key: feeds[key] for key in graph.inputs}
        expected = onnxruntime.InferenceSession(tmp_path / "whole.onnx").run(None, feeds)
        answer = onnxruntime.InferenceSession(tmp_path / f"{name}.fp32.onnx").run(None, feeds)
        for a, b in zip(expected, answer):
            assert (a == b).all()
        # No matrix is in the graph's own file.
        made = onnx.load(tmp_path / f"{name}.fp32.onnx", load_external_data=False)
        held = {tensor.name: tensor for tensor in made.graph.initializer}
        assert not any("/" not in name and name.rpartition(".")[2] in ("qkv", "out", "up", "down", "head", "first", "embedding") for name in held)
        outside = {entry.value for t in held.values() for entry in t.external_data if entry.key == "location"}
        assert outside <= {f"weights.{weights}.safetensors", f"discriminator.{weights}.safetensors"} and outside


def test_a_matrix_that_does_not_follow_from_the_weights_is_named(backbone, tmp_path):
    save_weights(backbone, tmp_path / "weights.safetensors")  # rounded, and the network is not
    graph = Denoise(backbone)
    sources = origins(graph, {"student": "weights.safetensors", "discriminator": ""})
    with pytest.raises(ValueError, match="does not follow from .* of weights.safetensors: were its weights rounded"):
        store_once(to_model(graph), sources, StoredTensors(tmp_path))


@pytest.fixture(scope="module")
def int8(backbone):
    """An int8 `denoise` with its ranges, and the float32 one, as models."""
    graph = Denoise(backbone)
    whole = to_model(graph)
    matrices = [name for name in origins(graph, {"student": "", "discriminator": ""}) if not name.endswith("embedding")]
    torch.manual_seed(2)
    windows = torch.randint(0, backbone.config.mask_id, (24, 32))
    return whole, matrices, windows, activation_ranges(whole, matrices, windows, backbone.config.mask_id)


def test_int8_is_near_float32_and_nearer_without_cutting(backbone, int8):
    whole, matrices, windows, ranges = int8
    exact = window_nelbo(whole, windows, backbone.config.mask_id)
    distance = {}
    for percentile in (50.0, 100.0):
        cut = ranges[100.0] if percentile == 100 else {name: (low / 4, high / 4) for name, (low, high) in ranges[100.0].items()}
        model = quantise(whole, matrices, cut)
        assert len([n for n in model.graph.node if n.op_type == "MatMulIntegerToFloat"]) == len(products(whole, matrices))
        assert not products(model, matrices)
        distance[percentile] = abs(window_nelbo(model, windows, backbone.config.mask_id) - exact).mean()
    assert distance[100.0] < 0.02 * exact.mean()
    assert distance[100.0] < distance[50.0] / 3


def test_int8_gives_a_row_the_same_bits_in_any_batch(backbone, int8, tmp_path):
    whole, matrices, _, ranges = int8
    onnx.save(quantise(whole, matrices, ranges[100.0]), tmp_path / "int8.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
    feeds = make_inputs(backbone.config.mask_id, 1.0)
    together = session.run(None, feeds)
    for row in range(3):
        own = feeds["picks"][:, 0] == row
        drawn = own[feeds["draws"]]
        alone = session.run(
            None,
            {
                "tokens": feeds["tokens"][row : row + 1],
                "length": feeds["length"][row : row + 1],
                "picks": feeds["picks"][own] * [0, 1],
                "draws": feeds["draws"][drawn] - feeds["draws"][drawn].min(),
                **{name: feeds[name][drawn] for name in ("uniform", "temperature", "top_k", "top_p")},
            },
        )
        for a, b, mine in zip(alone, together, (drawn, drawn, own)):
            assert (a == b[mine]).all()


def test_a_folder_in_int8_says_how_it_was_calibrated(backbone, tmp_path):
    about = folder_with_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="int8 needs text to calibrate on"):
        write_model_folder(tmp_path, **about, backbone=copy.deepcopy(backbone), precisions=("fp32", "int8"))
    windows = torch.randint(0, backbone.config.mask_id, (16, 32))
    write_model_folder(tmp_path, **about, backbone=copy.deepcopy(backbone), precisions=("fp32", "int8"), windows=windows)
    calibration = json.loads((tmp_path / "model.json").read_text())["calibration"]
    assert (calibration["windows"], calibration["tokens"]) == (16, 32) and calibration["percentile"] in PERCENTILES


def test_text_to_calibrate_on(backbone, tmp_path):
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "text.txt").write_text("ab" * 100 + "<|endoftext|>" + "a" * 20)
    length = backbone.config.context if backbone.config.context < 128 else 128
    windows = calibration_windows(tmp_path / "tokenizer.json", backbone.config, 5, tmp_path / "text.txt")
    assert windows.shape == (222 // length, length) and windows[0, :4].tolist() == [0, 1, 0, 1]
    (tmp_path / "text.txt").write_text("ab")
    with pytest.raises(ValueError, match="has 3 tokens, and int8 is calibrated on windows of"):
        calibration_windows(tmp_path / "tokenizer.json", backbone.config, 5, tmp_path / "text.txt")
