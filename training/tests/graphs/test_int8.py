"""Graphs in 8 bits, and the choice of their scales."""

import onnx
import onnxruntime
import pytest
import torch

from conftest import assert_rows_equal_alone, make_inputs
from didi.backbone import BackboneConfig
from didi.graphs import calibration
from didi.graphs.calibration import activation_ranges, calibrate, compare, matrices_of, sensitive
from didi.graphs.denoise import Denoise
from didi.graphs.int8 import products, quantise
from didi.graphs.products import int8_products, shapes_of_step
from didi.graphs.stored import origins
from didi.graphs.trace import to_model


@pytest.fixture(scope="module")
def int8(backbone):
    """Return a float32 `denoise`, the origins of its matrices, and windows of text."""
    graph = Denoise(backbone)
    torch.manual_seed(2)
    windows = torch.randint(0, backbone.config.mask_id, (24, 32))
    return to_model(graph), origins(graph, {"student": "weights", "discriminator": ""}), windows


@pytest.fixture(scope="module")
def ranges(backbone, int8):
    whole, sources, windows = int8
    return activation_ranges(whole, matrices_of(sources), windows, backbone.config.mask_id)[100.0]


def test_int8_is_near_float32_and_nearer_without_cutting(backbone, int8, ranges):
    whole, sources, windows = int8
    matrices = matrices_of(sources)
    found = []
    for cut in (1, 4):
        narrow = {name: (low / cut, high / cut) for name, (low, high) in ranges.items()}
        model = quantise(whole, matrices, narrow)
        made = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
        assert len(made) == len(products(whole, matrices)) == 4 * len(backbone.blocks)
        assert not products(model, matrices)
        found.append(compare(whole, model, windows, backbone.config.mask_id))
    full, cut = found
    assert abs(full.change).mean() < 0.02 * full.nelbo.mean()
    assert abs(full.change).mean() < abs(cut.change).mean() / 3
    assert 0 < full.divergence < cut.divergence / 3
    same = compare(whole, whole, windows, backbone.config.mask_id)
    assert same.divergence == 0 and not same.change.any()


def test_the_output_layer_and_sensitive_products_stay_in_float32(backbone, int8, monkeypatch):
    whole, sources, windows = int8
    monkeypatch.setattr(calibration, "SENSITIVE", 0)
    monkeypatch.setattr(calibration, "SHARE", 1)
    found = calibrate(whole, sources, windows, backbone.config.mask_id)
    assert found.float32[0] == "weights/output_layer.linear.weight"
    assert len(found.float32) == 1 + 4 * len(backbone.blocks)
    assert found.int8(sources) == [] and found.divergence == 0
    monkeypatch.undo()
    alone = {"a": 0.004, "b": 0.002, "c": 0.001, "d": 0.0004}
    assert sensitive(alone, {"a": 4, "b": 20, "c": 5, "d": 100}) == ["a", "c"]


def test_int8_gives_a_row_the_same_bits_in_any_batch(backbone, int8, ranges, tmp_path):
    whole, sources, _ = int8
    onnx.save(quantise(whole, matrices_of(sources), ranges), tmp_path / "int8.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
    assert_rows_equal_alone(session, make_inputs(backbone.config.mask_id, 1.0))


def test_the_products_of_a_step_run_in_int8():
    shapes = shapes_of_step(BackboneConfig(vocab_size=40, hidden=16, blocks=2, heads=2, context=32), 3, 8, 2)
    assert shapes[0] == (1, 24, 16, 48)
    assert shapes[1] == (6, 8, 8, 8)
    assert shapes[-1] == (1, 6, 16, 40)
    assert len(shapes) == 2 * 3 + 2 * 3 + 1
    assert int8_products(tuple(shapes), 1)() > 0
