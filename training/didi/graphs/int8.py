"""Static int8: a graph's products with constant matrices in 8 bits, with scales fixed at export.

Weights are int8 with a scale for each output column. Activations are uint8 with one scale and zero point for
each product, from their range in the float32 graph on held-out text at all noise levels. A fixed scale
depends on the model alone and sums of integers are exact, so a row has the same bits alone and in any batch.

The range is a percentile of the activations: the one whose NELBO stays closest to float32, window by window.
The percentile with the lowest NELBO would cut large values, which acts like a lower temperature.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..diffusion import ALPHA_MIN, alpha, corrupt, low_discrepancy_times

# Percentiles of the activations to choose from.
PERCENTILES = (99.9, 99.99, 99.999, 100.0)
BATCH = 8  # windows of one pass
LARGEST = 127  # of an int8 weight; -128 is left out, so that a scale serves both signs

# Lowest and highest value of an activation that its 8 bits represent.
Range = tuple[float, float]


@dataclass(frozen=True)
class Canvas:
    """Windows x [B, L], the same with masks z [B, L] at times t [B], and the picks that a graph is given."""

    x: np.ndarray
    z: np.ndarray
    t: np.ndarray
    picks: np.ndarray  # [P, 2] row and position of each mask

    def feeds(self) -> dict[str, np.ndarray]:
        """Return every input that a graph may take; sigma is 0, as in the plain sampler."""
        rows, picks = len(self.z), len(self.picks)
        return {
            "tokens": self.z,
            "length": np.full(rows, self.z.shape[1]),
            "picks": self.picks,
            "draws": np.arange(picks),
            "uniform": np.full(picks, 0.5, dtype=np.float32),
            "temperature": np.ones(picks, dtype=np.float32),
            "top_k": np.zeros(picks, dtype=np.int64),
            "top_p": np.ones(picks, dtype=np.float32),
            "scale": np.ones(rows, dtype=np.float32),
            "sigma": np.zeros(rows, dtype=np.float32),
            "mask_bias": np.full(rows, -1e9, dtype=np.float32),
        }


def canvases(windows: Tensor, mask_id: int, seed: int = 3) -> Iterator[Canvas]:
    """Yield batches of windows [N, L]; the windows of a batch have noise levels spread evenly."""
    generator = torch.Generator().manual_seed(seed)
    for x in windows.split(BATCH):
        t = low_discrepancy_times(len(x), float(torch.rand((), generator=generator)))
        t = t[torch.randperm(len(x), generator=generator)]
        z = corrupt(x, t, torch.rand(x.shape, generator=generator), mask_id)
        if (z == mask_id).any():
            yield Canvas(x.numpy(), z.numpy(), t.numpy(), (z == mask_id).nonzero().numpy())


def products(model: onnx.ModelProto, matrices: list[str]) -> list[onnx.NodeProto]:
    """Return the MatMul nodes whose second operand is one of the initializers `matrices`."""
    constant = {tensor.name for tensor in model.graph.initializer} & set(matrices)
    return [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constant]


class Probe:
    """A session of a float32 or int8 graph whose outputs are the given inner values."""

    def __init__(self, model: onnx.ModelProto, names: list[str]):
        probed = copy.deepcopy(model)
        del probed.graph.output[:]
        value = helper.make_tensor_value_info
        probed.graph.output.extend(value(name, TensorProto.FLOAT, None) for name in names)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(probed.SerializeToString(), options)
        self.inputs = [value.name for value in self.session.get_inputs()]

    def run(self, canvas: Canvas) -> list[np.ndarray]:
        feeds = canvas.feeds()
        return self.session.run(None, {name: feeds[name] for name in self.inputs})


def activation_ranges(
    model: onnx.ModelProto, matrices: list[str], windows: Tensor, mask_id: int
) -> dict[float, dict[str, Range]]:
    """Return for each of PERCENTILES the range of each activation that is multiplied by a matrix.

    A percentile is taken of each batch and averaged over batches; for 100 it is the extremes over all
    batches.
    """
    names = list(dict.fromkeys(node.input[0] for node in products(model, matrices)))
    probe = Probe(model, names)
    found: dict[float, dict[str, list[np.ndarray]]] = {p: {name: [] for name in names} for p in PERCENTILES}
    for canvas in canvases(windows, mask_id):
        for name, values in zip(names, probe.run(canvas)):
            outside = [(100 - p) / 2 for p in PERCENTILES]
            low, high = np.percentile(values, outside), np.percentile(values, [100 - q for q in outside])
            for i, p in enumerate(PERCENTILES):
                found[p][name].append(np.array([low[i], high[i]]))

    def over_batches(p: float, ends: list[np.ndarray]) -> Range:
        low, high = np.stack(ends).T
        return (low.min(), high.max()) if p == 100 else (low.mean(), high.mean())

    return {p: {name: over_batches(p, ends) for name, ends in part.items()} for p, part in found.items()}


def quantise(model: onnx.ModelProto, matrices: list[str], ranges: dict[str, Range]) -> onnx.ModelProto:
    """Return a copy of the graph whose products by `matrices` are in 8 bits.

    The matrices stay as they are: a node computes the int8 matrix from the float32 one, and ONNX Runtime
    folds it at load. A bias that is added to a product becomes part of it.
    """
    out = copy.deepcopy(model)
    graph = out.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    chosen = {node.output[0] for node in products(model, matrices)}
    nodes: list[onnx.NodeProto] = []
    made, fused = set(), set()

    def constant(name: str, value: np.ndarray) -> str:
        if name not in made:
            made.add(name)
            graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def quantised(name: str, scale: str, zero: str, **attributes: int) -> str:
        result = f"{name}.int8"
        if result not in made:
            made.add(result)
            inputs = [name, scale, zero]
            node = helper.make_node("QuantizeLinear", inputs, [result], name=result, **attributes)
            nodes.append(node)
        return result

    for node in graph.node:
        if node.output[0] not in chosen:
            if node.output[0] not in fused:
                nodes.append(node)
            continue
        x, matrix = node.input
        low, high = min(ranges[x][0], 0.0), max(ranges[x][1], 0.0)
        step = np.float32((high - low) / 255 or 1)
        zero = constant(f"{x}.zero", np.uint8(np.clip(np.rint(-low / step), 0, 255)))
        scale = constant(f"{x}.scale", step)
        size = np.abs(values[matrix]).max(0) / np.float32(LARGEST)
        by_column = constant(f"{matrix}.scale", np.where(size > 0, size, 1).astype(np.float32))
        none = constant(f"{matrix}.zero", np.zeros(len(size), dtype=np.int8))
        inputs = [
            quantised(x, scale, zero),
            quantised(matrix, by_column, none, axis=1),
            scale,
            by_column,
            zero,
        ]
        output = node.output[0]
        after = readers.get(output, [])
        if len(after) == 1 and after[0].op_type == "Add":
            (bias,) = (name for name in after[0].input if name != output)
            if bias in values and values[bias].ndim == 1:
                inputs += ["", bias]
                output = after[0].output[0]
                fused.add(output)
        about = {"name": f"{output}.product", "domain": "com.microsoft"}
        nodes.append(helper.make_node("MatMulIntegerToFloat", inputs, [output], **about))
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    out.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return out


def window_nelbo(model: onnx.ModelProto, windows: Tensor, mask_id: int) -> np.ndarray:
    """Return the NELBO [N] of each window by a `denoise` graph, in nats a token, with fixed noise."""
    (log_p,) = {node.output[0] for node in model.graph.node if node.op_type == "LogSoftmax"}
    probe, nats = Probe(model, [log_p]), []
    for canvas in canvases(windows, mask_id, seed=100):
        rows, positions = canvas.picks.T
        (values,) = probe.run(canvas)
        loss = -values[np.arange(len(rows)), canvas.x[rows, positions]]
        weight = (1 - ALPHA_MIN) / (1 - alpha(canvas.t))[rows]
        nats.append(np.bincount(rows, loss * weight, minlength=len(canvas.x)) / canvas.x.shape[1])
    return np.concatenate(nats)


@dataclass(frozen=True)
class Calibration:
    """How a folder's int8 graphs were made; `calibration` of `model.json`."""

    percentile: float
    windows: int
    tokens: int  # of a window
    nelbo: float  # nats a token in float32, on the same windows
    nelbo_change: float  # int8 minus float32, paired by window
    standard_error: float


def calibrate(model: onnx.ModelProto, matrices: list[str], windows: Tensor, mask_id: int) -> Calibration:
    """Choose a folder's percentile on its float32 `denoise` graph. Print a line for each one tried."""
    ranges = activation_ranges(model, matrices, windows, mask_id)
    exact = window_nelbo(model, windows, mask_id)
    tried = []
    for percentile in PERCENTILES:
        change = window_nelbo(quantise(model, matrices, ranges[percentile]), windows, mask_id) - exact
        error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else 0.0
        distance = float(np.sqrt((change**2).mean()))
        figures = f"NELBO {change.mean():+.5f} ({error:.5f}), RMS {distance:.5f} a window"
        print(f"percentile {percentile}: {figures}", flush=True)
        measured = (round(float(exact.mean()), 4), round(float(change.mean()), 5), round(float(error), 5))
        tried.append((distance, Calibration(percentile, len(windows), windows.shape[1], *measured)))
    return min(tried, key=lambda pair: pair[0])[1]
