"""Weights stored once: graphs that make their matrices from the files of weights.

A graph's matrices are those of the network transposed, with adaLN's gates multiplied in. They are not stored: the graph
reads the network's own tensors out of its safetensors file, as ONNX external data, and a few nodes make the matrices of them.
ONNX Runtime folds these nodes when it loads the graph, whatever the precision of the matrices.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from safetensors import safe_open
from torch import Tensor, nn

DTYPES = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT}


@dataclass(frozen=True)
class Origin:
    """What a matrix of a graph is made of: `tensor` of a file of weights, transposed or not, each column times its
    `factor` (one for each column, or one for all), and zeros up to the matrix's shape."""

    file: str
    tensor: str
    transposed: bool = True
    factor: Tensor | None = None

    def make(self, stored: Tensor, shape: torch.Size) -> Tensor:
        """The matrix, from the tensor as it is stored."""
        made = stored.float().T if self.transposed else stored.float()
        if self.factor is not None:
            made = made * self.factor
        return nn.functional.pad(made, (0, shape[1] - made.shape[1], 0, shape[0] - made.shape[0]))


def origins(graph: nn.Module, files: Mapping[str, str]) -> dict[str, Origin]:
    """Where each stored matrix of a graph module comes from, by the parameter's name.

    `files` says which file holds the networks "student" and "discriminator". A module lists its matrices in
    `stored()`; names of tensors follow the module's own place in the network.
    """
    found = {}
    for path, module in graph.named_modules():
        if not hasattr(module, "stored"):
            continue
        network = "discriminator" if path.split(".")[0] == "discriminator" else "student"
        block = path[path.index("blocks.") :] + "." if "blocks." in path else ""
        for name, (tensor, transposed, factor) in module.stored().items():
            found[f"{path}.{name}".lstrip(".")] = Origin(files[network], block + tensor, transposed, factor)
    return found


class StoredTensors:
    """The tensors of a folder's files of weights, with their places in the files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.headers: dict[str, dict] = {}

    def header(self, file: str) -> dict:
        """The file's own list: name -> dtype, shape, data_offsets (from the start of the file)."""
        if file not in self.headers:
            with (self.folder / file).open("rb") as content:
                (size,) = struct.unpack("<Q", content.read(8))
                entries = json.loads(content.read(size))
            entries.pop("__metadata__", None)
            for entry in entries.values():
                entry["data_offsets"] = [8 + size + offset for offset in entry["data_offsets"]]
            self.headers[file] = entries
        return self.headers[file]

    def tensor(self, file: str, name: str) -> Tensor:
        with safe_open(self.folder / file, "pt") as content:
            return content.get_tensor(name)

    def proto(self, file: str, name: str, as_name: str) -> onnx.TensorProto:
        """The tensor as an initializer that lies in the file."""
        entry = self.header(file)[name]
        start, end = entry["data_offsets"]
        proto = TensorProto(name=as_name, data_type=DTYPES[entry["dtype"]], dims=entry["shape"])
        # `set_external_data` asks for something to move out; nothing is read from here.
        proto.raw_data = b""
        set_external_data(proto, file, offset=start, length=end - start)
        proto.ClearField("raw_data")
        return proto


def store_once(model: onnx.ModelProto, sources: Mapping[str, Origin], stored: StoredTensors) -> onnx.ModelProto:
    """Replaces the initializers that `sources` names by nodes that make them from the stored tensors, in place.

    Rows of a table are gathered before they are converted, so that the table stays in the file, which is mapped.
    Raises ValueError if what a node would make is not what the initializer holds.
    """
    graph, nodes, read = model.graph, [], {}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in sources]:
        origin, held = sources[tensor.name], torch.from_numpy(numpy_helper.to_array(tensor).copy())
        made = origin.make(stored.tensor(origin.file, origin.tensor), held.shape).to(held.dtype)
        if not torch.equal(made, held):
            raise ValueError(f"{tensor.name} does not follow from {origin.tensor} of {origin.file}: were its weights rounded?")
        name = f"{origin.file}/{origin.tensor}"
        source = read.setdefault(name, stored.proto(origin.file, origin.tensor, name))
        graph.initializer.remove(tensor)
        if not origin.transposed:
            gather_stored(graph, tensor, source)
        if any(tensor.name in node.input for node in graph.node):
            nodes += making(tensor, origin, source)
            graph.initializer.extend(constants(tensor, origin, source))
    graph.initializer.extend(read.values())
    for i, node in enumerate(nodes):
        graph.node.insert(i, node)
    return model


def gather_stored(graph: onnx.GraphProto, table: onnx.TensorProto, source: onnx.TensorProto) -> None:
    """Lets nodes that gather rows of `table` gather them from its source."""
    for i, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "Gather" or node.input[0] != table.name:
            continue
        node.input[0] = source.name
        if source.data_type != table.data_type:
            rows, node.output[0] = node.output[0], f"{node.output[0]}.stored"
            cast = helper.make_node("Cast", [node.output[0]], [rows], name=f"{rows}.Cast", to=table.data_type)
            graph.node.insert(i + 1, cast)


def shape_made(origin: Origin, source: onnx.TensorProto) -> list[int]:
    return list(reversed(source.dims)) if origin.transposed else list(source.dims)


def constants(tensor: onnx.TensorProto, origin: Origin, source: onnx.TensorProto) -> list[onnx.TensorProto]:
    """The small initializers that the nodes of `making` take."""
    extra = []
    if origin.factor is not None:
        extra.append(numpy_helper.from_array(origin.factor.float().numpy(), f"{tensor.name}.factor"))
    missing = np.subtract(tensor.dims, shape_made(origin, source))
    if missing.any():
        extra.append(numpy_helper.from_array(np.array([0, 0, *missing], dtype=np.int64), f"{tensor.name}.pads"))
    return extra


def making(tensor: onnx.TensorProto, origin: Origin, source: onnx.TensorProto) -> list[onnx.NodeProto]:
    """The nodes that make an initializer of its stored tensor, in float32 but for the last."""
    steps: list[tuple[str, list[str], dict]] = []
    if source.data_type != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if origin.transposed:
        steps.append(("Transpose", [], {"perm": [1, 0]}))
    names = [extra.name for extra in constants(tensor, origin, source)]
    steps += [("Mul" if name.endswith(".factor") else "Pad", [name], {}) for name in names]
    if tensor.data_type != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": tensor.data_type}))
    steps = steps or [("Identity", [], {})]
    nodes, value = [], source.name
    for i, (operator, inputs, attributes) in enumerate(steps):
        output = tensor.name if i == len(steps) - 1 else f"{tensor.name}.{i}"
        nodes.append(helper.make_node(operator, [value, *inputs], [output], name=f"{output}.{operator}", **attributes))
        value = output
    return nodes
