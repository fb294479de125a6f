"""Store weights once for all graphs of a folder.

A graph's matrices are the network's, transposed, with adaLN's gates multiplied in. They are not stored: the
graph reads the network's own tensors from its safetensors file, as ONNX external data, and a few nodes
compute the matrices. ONNX Runtime folds these nodes when it loads the graph, whatever the precision of the
matrices.
"""

import json
import struct
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
    """How a matrix of a graph follows from a stored tensor: transposed or not, times `factor`, padded with
    zeros.

    `factor` is one number for each column, or one for all.
    """

    file: str
    tensor: str
    transposed: bool = True
    factor: Tensor | None = None

    def make(self, stored: Tensor, shape: torch.Size) -> Tensor:
        """Return the matrix of this shape."""
        made = stored.float().T if self.transposed else stored.float()
        if self.factor is not None:
            made = made * self.factor
        return nn.functional.pad(made, (0, shape[1] - made.shape[1], 0, shape[0] - made.shape[0]))


def origins(graph: nn.Module, files: dict[str, str]) -> dict[str, Origin]:
    """Return the origin of each stored matrix of a graph module, by the parameter's name.

    `files` maps the networks "student" and "discriminator" to their files. A module lists its matrices in
    `stored()`; a tensor's name follows from the module's place in the network.
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
    """The tensors of a folder's weight files, and their offsets in the files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.headers: dict[str, dict] = {}

    def header(self, file: str) -> dict:
        """Return the file's own index: name -> dtype, shape, data_offsets (from the start of the file)."""
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
        """Return the tensor as an initializer whose data is in the file."""
        entry = self.header(file)[name]
        start, end = entry["data_offsets"]
        proto = TensorProto(name=as_name, data_type=DTYPES[entry["dtype"]], dims=entry["shape"])
        # `set_external_data` requires raw data; nothing is read from here.
        proto.raw_data = b""
        set_external_data(proto, file, offset=start, length=end - start)
        proto.ClearField("raw_data")
        return proto


def store_once(model: onnx.ModelProto, sources: dict[str, Origin], stored: StoredTensors) -> onnx.ModelProto:
    """Replace the initializers that `sources` names by nodes that compute them from the stored tensors, in
    place.

    Rows of a table are gathered before they are converted, so that the table stays in the memory-mapped file.
    Raise ValueError if what the nodes would compute is not what the initializer holds.
    """
    graph, nodes, read = model.graph, [], {}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in sources]:
        origin, held = sources[tensor.name], torch.from_numpy(numpy_helper.to_array(tensor).copy())
        made = origin.make(stored.tensor(origin.file, origin.tensor), held.shape).to(held.dtype)
        if not torch.equal(made, held):
            source = f"{origin.tensor} of {origin.file}"
            raise ValueError(f"{tensor.name} does not follow from {source}: were its weights rounded?")
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
    """Make the nodes that gather rows of `table` gather them from `source`."""
    for i, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "Gather" or node.input[0] != table.name:
            continue
        node.input[0] = source.name
        if source.data_type != table.data_type:
            rows, node.output[0] = node.output[0], f"{node.output[0]}.stored"
            cast = helper.make_node("Cast", [node.output[0]], [rows], name=f"{rows}.Cast", to=table.data_type)
            graph.node.insert(i + 1, cast)


def constants(tensor: onnx.TensorProto, origin: Origin, source: onnx.TensorProto) -> list[onnx.TensorProto]:
    """Return the small initializers that the nodes of `making` take."""
    extra = []
    if origin.factor is not None:
        extra.append(numpy_helper.from_array(origin.factor.float().numpy(), f"{tensor.name}.factor"))
    made = list(reversed(source.dims)) if origin.transposed else list(source.dims)
    missing = np.subtract(tensor.dims, made)
    if missing.any():
        pads = np.array([0, 0, *missing], dtype=np.int64)
        extra.append(numpy_helper.from_array(pads, f"{tensor.name}.pads"))
    return extra


def making(tensor: onnx.TensorProto, origin: Origin, source: onnx.TensorProto) -> list[onnx.NodeProto]:
    """Return the nodes that compute an initializer from its stored tensor, in float32 up to a last cast."""
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
        attributes["name"] = f"{output}.{operator}"
        nodes.append(helper.make_node(operator, [value, *inputs], [output], **attributes))
        value = output
    return nodes
