"""Static int8: the products of a graph by constant matrices in 8 bits, with scales fixed at export.

Weights are int8 with a scale for each output column. Activations are uint8 with one scale and zero point for each
product, taken from what the float32 graph holds on held-out text at all noise levels. A fixed scale depends on nothing but
the model, and sums of integers are exact, so a row gives the same bits alone and in any batch.

The scale follows from a percentile of the activations. The one is taken whose NELBO stays closest to float32, window by
window: the one with the lowest NELBO cuts what is large, which acts like a lower temperature.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from .diffusion import ALPHA_MIN, alpha, corrupt, low_discrepancy_times

# Percentiles of the activations' size to choose from.
PERCENTILES = (99.9, 99.99, 99.999, 100.0)
BATCH = 8  # windows of one call
LARGEST = 127  # of an int8 weight; -128 is left out, so that a scale serves both signs

# Lowest and highest value of an activation that its 8 bits reach.
Range = tuple[float, float]


@dataclass(frozen=True)
class Canvas:
    """Windows x [B, L] with noise z [B, L] of times t [B], as a graph is fed."""

    x: np.ndarray
    z: np.ndarray
    t: np.ndarray
    picks: np.ndarray  # [P, 2] row and position of each mask

    def feeds(self) -> dict[str, np.ndarray]:
        """Every input that a graph may take; sigma as the plain sampler gives it."""
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
    """Batches of windows [N, L], each at a noise level of its own; the levels of a batch are spread evenly."""
    generator = torch.Generator().manual_seed(seed)
    for x in windows.split(BATCH):
        t = low_discrepancy_times(len(x), float(torch.rand((), generator=generator)))
        t = t[torch.randperm(len(x), generator=generator)]
        z = corrupt(x, t, torch.rand(x.shape, generator=generator), mask_id)
        if (z == mask_id).any():
            yield Canvas(x.numpy(), z.numpy(), t.numpy(), (z == mask_id).nonzero().numpy())


def products(model: onnx.ModelProto, matrices: Collection[str]) -> list[onnx.NodeProto]:
    """The products of a graph by one of the initializers `matrices`."""
    constant = {tensor.name for tensor in model.graph.initializer} & set(matrices)
    return [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in constant]


class Probe:
    """A float32 or int8 graph, with values inside of it as outputs."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str]):
        probed = onnx.ModelProto()
        probed.CopyFrom(model)
        del probed.graph.output[:]
        probed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(probed.SerializeToString(), options)
        self.inputs = [value.name for value in self.session.get_inputs()]

    def run(self, canvas: Canvas) -> list[np.ndarray]:
        feeds = canvas.feeds()
        return self.session.run(None, {name: feeds[name] for name in self.inputs})


def activation_ranges(
    model: onnx.ModelProto, matrices: Collection[str], windows: Tensor, mask_id: int
) -> dict[float, dict[str, Range]]:
    """For each of PERCENTILES and each activation that meets a matrix: the range that holds so much of its values.

    Percentiles are of a batch, their mean is taken over batches; of 100, the extremes over all.
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

    return {p: {name: over_batches(p, ends) for name, ends in by_name.items()} for p, by_name in found.items()}


def quantise(model: onnx.ModelProto, matrices: Collection[str], ranges: dict[str, Range]) -> onnx.ModelProto:
    """A copy of the graph whose products by `matrices` are in 8 bits; the matrices themselves stay as they are stored.

    A node makes the int8 matrix of the float32 one; ONNX Runtime folds it at load. A bias that is added to a
    product becomes part of it.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph, values = out.graph, {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made: dict[str, onnx.TensorProto | onnx.NodeProto] = {}

    def constant(name: str, value: np.ndarray) -> str:
        if name not in made:
            made[name] = numpy_helper.from_array(value, name)
            graph.initializer.append(made[name])
        return name

    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    nodes: list[onnx.NodeProto] = []
    chosen = {node.output[0] for node in products(model, matrices)}
    renamed: dict[str, str] = {}
    fused = set()
    for node in graph.node:
        if node.op_type == "MatMul" and node.output[0] in chosen:
            x, matrix = node.input
            low, high = min(ranges[x][0], 0.0), max(ranges[x][1], 0.0)
            scale = np.float32((high - low) / 255 or 1)
            zero = constant(f"{x}.zero", np.uint8(np.clip(np.rint(-low / scale), 0, 255)))
            scale = constant(f"{x}.scale", scale)
            if f"{x}.int8" not in made:
                made[f"{x}.int8"] = helper.make_node("QuantizeLinear", [x, scale, zero], [f"{x}.int8"], name=f"{x}.int8")
                nodes.append(made[f"{x}.int8"])
            weights = values[matrix]
            size = np.abs(weights).max(0) / np.float32(LARGEST)
            by_column = constant(f"{matrix}.scale", np.where(size > 0, size, 1).astype(np.float32))
            none = constant(f"{matrix}.zero", np.zeros(weights.shape[1], dtype=np.int8))
            if f"{matrix}.int8" not in made:
                made[f"{matrix}.int8"] = helper.make_node(
                    "QuantizeLinear", [matrix, by_column, none], [f"{matrix}.int8"], name=f"{matrix}.int8", axis=1
                )
                nodes.append(made[f"{matrix}.int8"])
            inputs, output = [f"{x}.int8", f"{matrix}.int8", scale, by_column, zero], node.output[0]
            after = readers.get(output, [])
            if len(after) == 1 and after[0].op_type == "Add":
                (bias,) = (name for name in after[0].input if name != output)
                if bias in values and values[bias].ndim == 1:
                    inputs += ["", bias]
                    fused.add(after[0].output[0])
                    output = after[0].output[0]
            nodes.append(
                helper.make_node("MatMulIntegerToFloat", inputs, [output], name=f"{output}.product", domain="com.microsoft")
            )
        elif node.output[0] not in fused:
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    out.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return out


def window_nelbo(model: onnx.ModelProto, windows: Tensor, mask_id: int, repeats: int = 1) -> np.ndarray:
    """NELBO of each window [N * repeats] by a `denoise` graph, in nats a token; the noise depends on the windows alone."""
    (log_p,) = {node.output[0] for node in model.graph.node if node.op_type == "LogSoftmax"}
    probe, nats = Probe(model, [log_p]), []
    for seed in range(repeats):
        for canvas in canvases(windows, mask_id, seed=100 + seed):
            rows, positions = canvas.picks.T
            (values,) = probe.run(canvas)
            loss = -values[np.arange(len(rows)), canvas.x[rows, positions]]
            weight = (1 - ALPHA_MIN) / (1 - alpha(canvas.t))[rows]
            nats.append(np.bincount(rows, loss * weight, minlength=len(canvas.x)) / canvas.x.shape[1])
    return np.concatenate(nats)


@dataclass(frozen=True)
class Calibration:
    """How a folder's int8 graphs were made, as `model.json` tells it."""

    percentile: float
    windows: int
    tokens: int  # of a window
    nelbo: float  # nats a token in float32, on the same windows
    nelbo_change: float  # of int8, paired
    standard_error: float

    def to_dict(self) -> dict:
        return {
            "percentile": self.percentile,
            "windows": self.windows,
            "tokens": self.tokens,
            "nelbo": round(self.nelbo, 4),
            "nelbo_change": round(self.nelbo_change, 5),
            "standard_error": round(self.standard_error, 5),
        }


def calibrate(model: onnx.ModelProto, matrices: Collection[str], windows: Tensor, mask_id: int) -> Calibration:
    """The percentile for a folder, chosen on its float32 `denoise` graph. Prints a line for each one tried."""
    ranges = activation_ranges(model, matrices, windows, mask_id)
    exact = window_nelbo(model, windows, mask_id)
    tried = []
    for percentile in PERCENTILES:
        change = window_nelbo(quantise(model, matrices, ranges[percentile]), windows, mask_id) - exact
        error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else 0.0
        tried.append(
            Calibration(percentile, len(windows), windows.shape[1], float(exact.mean()), float(change.mean()), float(error))
        )
        distance = float(np.sqrt((change**2).mean()))
        print(f"percentile {percentile}: NELBO {change.mean():+.5f} ({error:.5f}), {distance:.5f} away a window", flush=True)
        tried[-1] = (distance, tried[-1])
    return min(tried, key=lambda pair: pair[0])[1]
