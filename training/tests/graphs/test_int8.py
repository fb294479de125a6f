"""Graphs in 8 bits."""

import onnx
import onnxruntime
import pytest
import torch

from conftest import assert_rows_equal_alone, make_inputs
from didi.graphs.denoise import Denoise
from didi.graphs.int8 import activation_ranges, products, quantise, window_nelbo
from didi.graphs.stored import origins
from didi.graphs.trace import to_model


@pytest.fixture(scope="module")
def int8(backbone):
    """Return a float32 `denoise`, its matrices, windows of text, and the ranges of its activations."""
    graph = Denoise(backbone)
    whole = to_model(graph)
    matrices = [
        name
        for name in origins(graph, {"student": "", "discriminator": ""})
        if not name.endswith("embedding")
    ]
    torch.manual_seed(2)
    windows = torch.randint(0, backbone.config.mask_id, (24, 32))
    return whole, matrices, windows, activation_ranges(whole, matrices, windows, backbone.config.mask_id)


def test_int8_is_near_float32_and_nearer_without_cutting(backbone, int8):
    whole, matrices, windows, ranges = int8
    exact = window_nelbo(whole, windows, backbone.config.mask_id)
    distance = {}
    for percentile in (50.0, 100.0):
        cut = (
            ranges[100.0]
            if percentile == 100
            else {name: (low / 4, high / 4) for name, (low, high) in ranges[100.0].items()}
        )
        model = quantise(whole, matrices, cut)
        made = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
        assert len(made) == len(products(whole, matrices))
        assert not products(model, matrices)
        distance[percentile] = abs(window_nelbo(model, windows, backbone.config.mask_id) - exact).mean()
    assert distance[100.0] < 0.02 * exact.mean()
    assert distance[100.0] < distance[50.0] / 3


def test_int8_gives_a_row_the_same_bits_in_any_batch(backbone, int8, tmp_path):
    whole, matrices, _, ranges = int8
    onnx.save(quantise(whole, matrices, ranges[100.0]), tmp_path / "int8.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
    assert_rows_equal_alone(session, make_inputs(backbone.config.mask_id, 1.0))
