"""Choose the scales of int8 graphs, and the products that stay in float32.

An activation's range is a percentile of its values in the float32 graph, on held-out text at all noise
levels. What int8 costs is the KL divergence of the distributions of masked tokens, float32 against int8: it
grows with any change, where the NELBO and the perplexity of samples may fall by chance or by sharpening.

The output layer stays in float32. It runs at picked positions only, so that it saves little time, and it
alone makes half of the divergence. So do the products that alone cost more than SENSITIVE, the most costly
first, as long as they hold at most SHARE of the weights.
"""

import copy
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor

from ..diffusion import ALPHA_MIN, alpha, corrupt, low_discrepancy_times
from .int8 import Range, products, quantise
from .stored import Origin

# Percentiles of the activations to choose from.
PERCENTILES = (99.9, 99.99, 99.999, 100.0)
SENSITIVE = 0.0005  # nats a masked token
SHARE = 0.1
SENSITIVITY_WINDOWS = 16  # windows on which each product is tried alone
BATCH = 8  # windows of one pass
OUTPUT_LAYER = "output_layer.linear.weight"


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
            "alternatives": np.zeros(0, dtype=np.int64),
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
    model: onnx.ModelProto, matrices: Collection[str], windows: Tensor, mask_id: int
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


@dataclass(frozen=True)
class Difference:
    """What int8 changes on the same windows and noise.

    `divergence` is the mean KL(float32 || int8) of a masked token in nats; `nelbo` and `change` [N] are the
    float32 NELBO of each window and what int8 adds to it, in nats a token.
    """

    divergence: float
    nelbo: np.ndarray
    change: np.ndarray


def log_probabilities(model: onnx.ModelProto) -> Probe:
    """Return a probe of the log-probabilities [P, V] of a `denoise` graph."""
    (name,) = {node.output[0] for node in model.graph.node if node.op_type == "LogSoftmax"}
    return Probe(model, [name])


def compare(exact: onnx.ModelProto, other: onnx.ModelProto, windows: Tensor, mask_id: int) -> Difference:
    """Compare two `denoise` graphs on windows [N, L] at fixed noise."""
    probes = log_probabilities(exact), log_probabilities(other)
    divergence, nelbo, change = [], [], []
    for canvas in canvases(windows, mask_id, seed=100):
        (p,), (q,) = (probe.run(canvas) for probe in probes)
        divergence.append((np.exp(p) * (p - q)).sum(-1))
        rows, positions = canvas.picks.T
        weight = (1 - ALPHA_MIN) / (1 - alpha(canvas.t))[rows] / canvas.x.shape[1]
        of_tokens = np.arange(len(rows)), canvas.x[rows, positions]
        for nats, values in ((nelbo, -p[of_tokens]), (change, (p - q)[of_tokens])):
            nats.append(np.bincount(rows, values * weight, minlength=len(canvas.x)))
    return Difference(
        float(np.concatenate(divergence).mean()), np.concatenate(nelbo), np.concatenate(change)
    )


@dataclass(frozen=True)
class Calibration:
    """How a folder's int8 graphs were made; `calibration` of `model.json`."""

    percentile: float
    windows: int
    tokens: int  # of a window
    float32: list[str]  # tensors whose products stay in float32, as file/tensor
    divergence: float  # KL(float32 || int8) of a masked token, nats
    nelbo: float  # nats a token in float32, on the same windows
    nelbo_change: float  # int8 minus float32, paired by window
    standard_error: float

    def int8(self, sources: Mapping[str, Origin]) -> list[str]:
        """Return the matrices of a graph whose products are in int8."""
        return [name for name in matrices_of(sources) if label(sources[name]) not in self.float32]


def label(origin: Origin) -> str:
    """Return a stored tensor's name in a manifest."""
    return f"{origin.file}/{origin.tensor}"


def matrices_of(sources: Mapping[str, Origin]) -> list[str]:
    """Return the matrices of a graph that could be in int8: all but tables and the output layer."""
    return [name for name, origin in sources.items() if origin.transposed and origin.tensor != OUTPUT_LAYER]


def sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of values of each initializer."""
    return {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}


def sensitive(alone: Mapping[str, float], size: Mapping[str, int]) -> list[str]:
    """Return the matrices that stay in float32, given the divergence and the size of each."""
    kept, left = [], SHARE * sum(size[name] for name in alone)
    for name in sorted(alone, key=alone.__getitem__, reverse=True):
        if alone[name] > SENSITIVE and size[name] <= left:
            kept.append(name)
            left -= size[name]
    return kept


def calibrate(
    model: onnx.ModelProto, sources: Mapping[str, Origin], windows: Tensor, mask_id: int
) -> Calibration:
    """Choose percentile and float32 products on a float32 `denoise` graph. Print a line for each one tried.

    `sources` gives the origin of each matrix. The percentile is the one with the least divergence.
    """
    matrices = matrices_of(sources)
    ranges = activation_ranges(model, matrices, windows, mask_id)
    tried = {}
    for percentile in PERCENTILES:
        found = compare(model, quantise(model, matrices, ranges[percentile]), windows, mask_id)
        tried[percentile] = found.divergence
        print(f"percentile {percentile}: divergence {found.divergence:.5f}", flush=True)
    best = min(tried, key=tried.__getitem__)
    few, alone = windows[:SENSITIVITY_WINDOWS], {}
    for name in matrices:
        alone[name] = compare(model, quantise(model, [name], ranges[best]), few, mask_id).divergence
        print(f"{name} alone: divergence {alone[name]:.5f}", flush=True)
    kept = sensitive(alone, sizes(model))
    print(f"in float32: {', '.join(['the output layer', *kept])}", flush=True)
    chosen = [name for name in matrices if name not in kept]
    found = compare(model, quantise(model, chosen, ranges[best]), windows, mask_id)
    error = found.change.std(ddof=1) / np.sqrt(len(found.change)) if len(found.change) > 1 else 0.0
    nelbo, change = found.nelbo.mean(), found.change.mean()
    print(f"divergence {found.divergence:.5f}, NELBO {nelbo:.4f} {change:+.5f} ({error:.5f})", flush=True)
    kept = [label(origin) for name, origin in sources.items() if origin.transposed and name not in chosen]
    return Calibration(
        percentile=best,
        windows=len(windows),
        tokens=windows.shape[1],
        float32=kept,
        divergence=round(found.divergence, 5),
        nelbo=round(float(nelbo), 4),
        nelbo_change=round(float(change), 5),
        standard_error=round(float(error), 5),
    )
