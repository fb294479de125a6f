"""PyTorch to ONNX: the one place that knows the exporter."""

import hashlib
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data
from torch import nn

OPSET = 20  # the first with a Gelu of its own


def export_onnx(
    module: nn.Module, *, example: dict, outputs: Sequence[str], dynamic_shapes: dict, inputs: Sequence[str] = ()
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
    return model


class SharedWeights:
    """One file for the large tensors of several graphs; a tensor that two of them hold is there once.

    ONNX Runtime maps the file, so it is in memory once as well.
    """

    LEAST = 1024  # bytes; what is smaller stays in its graph
    ALIGNMENT = 4096  # of a memory page

    def __init__(self, path: Path):
        self.path = path
        self.offsets: dict[bytes, int] = {}
        self.file = path.open("wb")

    def __enter__(self) -> "SharedWeights":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def take(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Moves the large tensors of a graph into the file, in place."""
        for tensor in model.graph.initializer:
            data = numpy_helper.to_array(tensor).tobytes()
            if len(data) < self.LEAST:
                continue
            digest = hashlib.sha256(data).digest()
            if digest not in self.offsets:
                self.file.write(b"\0" * (-self.file.tell() % self.ALIGNMENT))
                self.offsets[digest] = self.file.tell()
                self.file.write(data)
            tensor.raw_data = data
            set_external_data(tensor, self.path.name, offset=self.offsets[digest], length=len(data))
            tensor.ClearField("raw_data")
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
