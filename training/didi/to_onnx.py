"""PyTorch to ONNX: the one place that knows the exporter."""

import logging
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import nn

# The first whose Attention takes the length of each row.
OPSET = 24
# Of graphs in half: ONNX Runtime has all of its operators on CUDA.
CUDA_OPSET = 20


def export_onnx(
    module: nn.Module,
    *,
    example: dict,
    outputs: Sequence[str],
    dynamic_shapes: dict,
    inputs: Sequence[str] = (),
    opset: int = OPSET,
) -> onnx.ModelProto:
    """`module`, traced on an example (argument -> value) and checked.

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
