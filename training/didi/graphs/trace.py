"""Trace PyTorch modules to ONNX."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

OPSET = 24  # the first whose Attention takes the length of each row
WEIGHTS = "weights."  # before the names of inputs that are weights
CUDA_OPSET = 20  # of graphs in half: ONNX Runtime has all of its operators on CUDA


def trace(
    module: nn.Module,
    *,
    example: dict,
    outputs: Sequence[str],
    dynamic_shapes: dict,
    inputs: Sequence[str] = (),
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Trace `module` on an example (argument -> value), check the graph and return it.

    Inputs have the names of the arguments unless `inputs` is given.
    """
    # The exporter names every optional package that is not installed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (),
            kwargs=example,
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs or example),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    model = program.model_proto
    del model.metadata_props[:]
    strip(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def strip(graph: onnx.GraphProto) -> None:
    """Remove the exporter's notes, such as stack traces with paths, and shapes that can be inferred."""
    del graph.value_info[:]
    del graph.metadata_props[:]
    for items in (graph.node, graph.input, graph.output, graph.initializer):
        for item in items:
            del item.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                strip(attribute.g)


def example_inputs() -> dict[str, tuple[torch.Tensor, dict[int, str]]]:
    """Return for each input of a graph an example to trace with, and its dynamic axes."""
    return {
        "tokens": (torch.zeros(2, 16, dtype=torch.int64), {0: "B", 1: "L"}),
        "length": (torch.tensor([16, 12]), {0: "B"}),
        "picks": (torch.tensor([[0, 1], [0, 2], [0, 7], [1, 0], [1, 11]]), {0: "P"}),
        "draws": (torch.tensor([0, 1, 2, 3, 4, 4, 3]), {0: "S"}),
        "uniform": (torch.full((7,), 0.5), {0: "S"}),
        "temperature": (torch.ones(7), {0: "S"}),
        "top_k": (torch.zeros(7, dtype=torch.int64), {0: "S"}),
        "top_p": (torch.ones(7), {0: "S"}),
        "alternatives": (torch.zeros(3, dtype=torch.int64), {0: "K"}),
        "scale": (torch.ones(2), {0: "B"}),
        "sigma": (torch.ones(2), {0: "B"}),
        "mask_bias": (torch.zeros(2), {0: "B"}),
    }


def to_model(
    graph: nn.Module, opset: int = OPSET, weights: dict[str, torch.Tensor] | None = None
) -> onnx.ModelProto:
    """Trace a graph module (`inputs`, `OUTPUTS`; see denoise.py and guided.py).

    With `weights`, which may be expanded from one value, they are the module's first argument, and inputs of
    the graph named WEIGHTS + name.
    """
    examples = example_inputs()
    axes = {name: torch.export.Dim(name) for name in ("B", "L", "P", "S", "K")}
    example = {name: examples[name][0] for name in graph.inputs}
    shapes = {name: {i: axes[a] for i, a in examples[name][1].items()} for name in graph.inputs}
    if weights is not None:
        example, shapes = {"weights": weights, **example}, {"weights": dict.fromkeys(weights), **shapes}
    return trace(
        graph,
        example=example,
        inputs=[*(WEIGHTS + name for name in weights or ()), *graph.inputs],
        outputs=graph.OUTPUTS,
        opset=opset,
        dynamic_shapes=shapes,
    )


def export_graph(graph: nn.Module, path: Path) -> None:
    """Write a graph module as one self-contained ONNX file."""
    onnx.save(to_model(graph), str(path))
