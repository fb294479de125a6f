"""Time the matrix products alone of a step: the least time that the step can take at this machine's rate."""

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from ..backbone import BackboneConfig

# (count, m, k, n): `count` times [m, k] @ [k, n]. Attention has one for each head, a layer has one.
Shape = tuple[int, int, int, int]


def shapes_of_step(config: BackboneConfig, rows: int, length: int, picks: int) -> list[Shape]:
    """Return the products of a step whose last block and head run at `picks` positions a row.

    The last one is that of the output layer.
    """
    d, wide, head = config.hidden, config.mlp_ratio * config.hidden, config.hidden // config.heads
    everywhere, picked = rows * length, rows * picks
    heads = rows * config.heads
    attention = [(1, everywhere, d, 3 * d), (heads, length, head, length), (heads, length, length, head)]
    rest = lambda m: [(1, m, d, d), (1, m, d, wide), (1, m, wide, d)]  # noqa: E731
    blocks = config.blocks * attention + (config.blocks - 1) * rest(everywhere) + rest(picked)
    return [*blocks, (1, picked, d, config.vocab_size)]


def wait_for(device: str) -> None:
    """Wait until a GPU has done what was sent to it."""
    if device == "cuda":
        torch.cuda.synchronize()


def time_products(shapes: list[Shape], device: str, dtype: torch.dtype) -> float:
    """Return the seconds of all products in PyTorch, each with a matrix of its own, as layers have them."""
    new = {"device": device, "dtype": dtype}
    operands = [
        (torch.randn(c, m, k, **new), torch.randn(c, k, n, **new), torch.empty(c, m, n, **new))
        for c, m, k, n in shapes
    ]
    wait_for(device)
    started = time.perf_counter()
    for left, right, out in operands:
        if len(left) == 1:
            torch.mm(left[0], right[0], out=out[0])
        else:
            torch.bmm(left, right, out=out)
    wait_for(device)
    return time.perf_counter() - started


@cache
def int8_products(shapes: tuple[Shape, ...], threads: int) -> Callable[[], float]:
    """Return a function that gives the seconds of all products in ONNX Runtime.

    The layers' products are in int8; attention and the output layer, the last shape, are in float32, as in an
    int8 graph.
    """
    rng = np.random.default_rng(0)
    nodes, weights, inputs, feeds = [], [], [], {}

    def given(name: str, value: np.ndarray) -> str:
        feeds[name] = value
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, value.shape))
        return name

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    outputs = []
    for i, (count, m, k, n) in enumerate(shapes):
        outputs.append(helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, None))
        if count > 1:
            left = given(f"left{i}", rng.standard_normal((count, m, k), dtype=np.float32))
            right = given(f"right{i}", rng.standard_normal((count, k, n), dtype=np.float32))
            nodes.append(helper.make_node("MatMul", [left, right], [f"out{i}"]))
        elif i == len(shapes) - 1:
            left = given(f"left{i}", rng.standard_normal((m, k), dtype=np.float32))
            right = constant(f"right{i}", rng.standard_normal((k, n), dtype=np.float32))
            nodes.append(helper.make_node("MatMul", [left, right], [f"out{i}"]))
        else:
            operands = [
                given(f"left{i}", rng.integers(0, 256, (m, k), dtype=np.uint8)),
                constant(f"right{i}", rng.integers(-127, 128, (k, n), dtype=np.int8)),
                constant(f"scale{i}", np.float32(0.01)),
                constant(f"scales{i}", np.full(n, 0.01, dtype=np.float32)),
                constant(f"zero{i}", np.uint8(128)),
            ]
            domain = "com.microsoft"
            nodes.append(helper.make_node("MatMulIntegerToFloat", operands, [f"out{i}"], domain=domain))
    graph = helper.make_graph(nodes, "products", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin between two runs would take the processor from what is measured in turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def seconds() -> float:
        started = time.perf_counter()
        session.run(None, feeds)
        return time.perf_counter() - started

    seconds()  # the first run allocates memory
    return seconds
