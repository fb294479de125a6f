"""PyTorch to ONNX: the one place that knows the exporter."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

OPSET = 20  # the first with a Gelu of its own


def export_onnx(
    module: nn.Module, path: Path, *, example: dict, outputs: Sequence[str], dynamic_shapes: dict, inputs: Sequence[str] = ()
) -> None:
    """Traces `module` on an example (argument -> value), writes one self-contained file, and checks it.

    Inputs are named as the arguments are, unless `inputs` says otherwise.
    """
    # The exporter names every optional package it does without.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (),
            kwargs=example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs or example),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    model = program.model_proto
    del model.metadata_props[:]
    strip(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def strip(graph: onnx.GraphProto) -> None:
    """Removes the exporter's notes, such as stack traces with the paths of this machine, and shapes that follow."""
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
