"""Converted checkpoints of each family against the network that made them (oracles.py)."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import assert_rows_equal_alone, make_inputs
from didi.convert import ConversionError, convert
from didi.diffusion import subs
from didi.families.build import open_source
from didi.families.tables import FAMILIES
from didi.families.trunk import FamilyDenoise
from didi.tools.oracle import draw
from oracles import CASES, LAST, ROWS, denoiser, random_network, save_checkpoint

# What is exported, which takes seconds; the other cases run in PyTorch.
EXPORTED = {
    "llada-grouped-tied": ("fp32",),
    "dream": ("fp32", "fp16", "int8"),
    "qwen3-mdlm": ("fp32",),
    "bert": ("fp32",),
    "modernbert": ("fp32", "int8"),
}
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.3}


def compare(network, feeds: dict, outputs: list, tolerance: float, exact: bool) -> None:
    """Assert that the outputs of `denoise` are the network's; with `exact`, so are the drawn tokens."""
    token, logprob, entropy, *_ = outputs
    compared = 0
    for row, length in enumerate(feeds["length"]):
        log_p = subs(network(torch.from_numpy(feeds["tokens"][row : row + 1, :length]))[0], LAST)
        p = log_p.exp()
        expected = -(p * log_p.masked_fill(p == 0, 0)).sum(-1)
        mine = feeds["picks"][:, 0] == row
        np.testing.assert_allclose(entropy[mine], expected[feeds["picks"][mine, 1]], atol=2 * tolerance)
        for s in np.flatnonzero(mine[feeds["draws"]]):
            here = log_p[feeds["picks"][feeds["draws"][s], 1]]
            assert abs(logprob[s] - float(here[token[s]])) < tolerance
            wanted, margin = draw(here, 1.0, float(feeds["uniform"][s]))
            if margin > 1e-5:
                assert not exact or token[s] == wanted
                compared += 1
    assert compared > 0.95 * len(feeds["draws"])


@pytest.mark.parametrize("name", CASES)
def test_the_module_equals_the_network(name, tmp_path):
    case = CASES[name]
    model = random_network(case)
    save_checkpoint(case, model, tmp_path / "checkpoint")
    assert len(list((tmp_path / "checkpoint").glob("*.safetensors"))) > (3 if case.shard == "20KB" else 0)
    definition = json.loads((tmp_path / "checkpoint" / "tokenizer.json").read_text())
    source, _ = open_source(tmp_path / "checkpoint", FAMILIES[case.family], definition)
    weights = {slot: torch.cat([*source.slabs(slot)]) for slot in source.shapes()}
    assert all(tensor.shape == source.shapes()[slot] for slot, tensor in weights.items())
    weights = {slot: tensor.float() for slot, tensor in weights.items()}
    feeds = make_inputs(LAST, 1.0)
    with torch.no_grad():
        module = FamilyDenoise(source.layout, source.vocabulary.size)
        outputs = module(weights, **{key: torch.from_numpy(value) for key, value in feeds.items()})
    compare(denoiser(case, model), feeds, [output.numpy() for output in outputs], 1e-4, True)


@pytest.mark.parametrize("name", EXPORTED)
def test_the_graphs_equal_the_network(name, tmp_path):
    case = CASES[name]
    model = random_network(case)
    save_checkpoint(case, model, tmp_path / "checkpoint")
    convert(tmp_path / "checkpoint", tmp_path / "model", precisions=EXPORTED[name])
    manifest = json.loads((tmp_path / "model" / "model.json").read_text())
    assert (manifest["family"], manifest["mask_token_id"]) == (case.family, LAST)
    feeds = make_inputs(LAST, 1.0)
    for precision, entry in manifest["graphs"]["denoise"].items():
        session = onnxruntime.InferenceSession(str(tmp_path / "model" / entry["file"]))
        outputs = session.run(None, feeds)
        compare(denoiser(case, model), feeds, outputs, TOLERANCE[precision], precision == "fp32")
        if precision != "fp16":  # its products on a CPU are summed in an order that the batch decides
            assert_rows_equal_alone(session, feeds)


def test_bad_tensors_are_listed_and_nothing_is_written(tmp_path):
    case = CASES["llada"]
    model = random_network(case)
    save_checkpoint(case, model, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.transformer.blocks.1.q_proj.weight"]
    tensors["model.transformer.blocks.0.ff_out.weight"] = torch.zeros(3, 4)
    tensors["model.transformer.ln_f.weight"] = torch.zeros(48, dtype=torch.int64)
    tensors["model.transformer.blocks.2.q_proj.weight"] = torch.zeros(5)
    save_file(tensors, file)
    with pytest.raises(ConversionError) as caught:
        convert(tmp_path / "checkpoint", tmp_path / "model")
    assert str(caught.value).splitlines() == [
        "4 tensors do not fit the architecture",
        "  model.transformer.blocks.0.ff_out.weight is [3, 4]; expected [48, 56]",
        "  model.transformer.blocks.1.q_proj.weight is missing; expected [48, 48]",
        "  model.transformer.blocks.2.q_proj.weight [5] is not part of the architecture",
        "  model.transformer.ln_f.weight is of type I64; expected one of F32, F16, BF16",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("llada", {"alibi": True}, "alibi is True; only False is supported"),
        ("llada", {"architectures": ["GPT2LMHeadModel"]}, "config.json says that it is a GPT2LMHeadModel"),
        ("llada", {"embedding_size": 200}, "transformer.wte.weight is [336, 48]; expected [200, 48]"),
        ("dream", {"rope_scaling": {"type": "yarn"}, "rope_parameters": None}, "are scaled (yarn)"),
        ("qwen3-mdlm", {"layer_types": ["sliding_attention"]}, "layer_types has 'sliding_attention'"),
        ("qwen3-mdlm", {"hidden_size": None}, "config.json has no hidden_size"),
        ("bert", {"hidden_act": "relu"}, "hidden_act is 'relu'; only 'gelu' or 'gelu_new' is supported"),
    ],
)
def test_settings_that_no_graph_has_are_refused(name, change, says, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    save_checkpoint(CASES[name], random_network(CASES[name]), checkpoint)
    config = json.loads((checkpoint / "config.json").read_text()) | change
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConversionError) as caught:
        convert(checkpoint, tmp_path / "model")
    assert says in str(caught.value)


def test_a_tied_layer_must_equal_the_embedding(tmp_path):
    checkpoint, case = tmp_path / "checkpoint", CASES["dream-tied"]
    save_checkpoint(case, random_network(case), checkpoint)
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(ROWS, 48)
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(ConversionError, match="lm_head.weight differs from model.embed_tokens.weight"):
        convert(checkpoint, tmp_path / "model")
