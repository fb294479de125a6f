"""Write weights to files that graphs read as external data, one tensor at a time."""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import torch
from onnx import TensorProto
from onnx.external_data_helper import set_external_data
from torch import Tensor

# Of a file, unless one tensor alone is larger.
MOST_BYTES = 2_000_000_000

# Safetensors' and ONNX's names of the types.
TYPES = {
    torch.float32: ("F32", TensorProto.FLOAT),
    torch.float16: ("F16", TensorProto.FLOAT16),
    torch.bfloat16: ("BF16", TensorProto.BFLOAT16),
    torch.int8: ("I8", TensorProto.INT8),
}


@dataclass(frozen=True)
class Item:
    """A tensor to write: its shape and type, and how to make it, in slabs of rows."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Iterable[Tensor]]

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass
class Store:
    """The files of a model folder that graphs read."""

    folder: Path
    entries: dict[str, dict] = field(default_factory=dict)  # file -> its entry in model.json
    places: dict[str, tuple[str, int, Item]] = field(default_factory=dict)  # tensor -> file, offset

    def write(self, group: str, items: Iterable[Item]) -> None:
        """Write a group of tensors to GROUP.1.safetensors, GROUP.2.safetensors, ..."""
        parts: list[list[Item]] = []
        for item in items:
            if not parts or sum(one.bytes for one in parts[-1]) + item.bytes > MOST_BYTES:
                parts.append([])
            parts[-1].append(item)
        for number, part in enumerate(parts, start=1):
            self.write_file(f"{group}.{number}.safetensors", part)

    def write_file(self, file: str, items: list[Item]) -> None:
        header, at = {}, 0
        for item in items:
            header[item.name] = {
                "dtype": TYPES[item.dtype][0],
                "shape": list(item.shape),
                "data_offsets": [at, at + item.bytes],
            }
            at += item.bytes
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % 64)  # the first tensor is aligned
        digest, path = hashlib.sha256(), self.folder / file
        with path.open("wb") as out:

            def put(data) -> None:
                digest.update(data)
                out.write(data)

            put(struct.pack("<Q", len(text)))
            put(text)
            for item in items:
                self.places[item.name] = (file, 8 + len(text) + header[item.name]["data_offsets"][0], item)
                rows = 0
                for slab in item.make():
                    put(slab.to(item.dtype).contiguous().flatten().view(torch.uint8).numpy().data)
                    rows += len(slab)
                if rows != item.shape[0]:
                    raise AssertionError(f"{item.name} has {rows} rows instead of {item.shape[0]}")
        size = 8 + len(text) + at
        self.entries[file] = {"file": file, "sha256": digest.hexdigest(), "bytes": size}

    def initializer(self, name: str, as_name: str) -> TensorProto:
        """Return a tensor as an initializer whose data is in its file."""
        file, offset, item = self.places[name]
        proto = TensorProto(name=as_name, data_type=TYPES[item.dtype][1], dims=item.shape)
        proto.raw_data = b""  # `set_external_data` requires it
        set_external_data(proto, file, offset=offset, length=item.bytes)
        proto.ClearField("raw_data")
        return proto

    def attach(self, model: onnx.ModelProto, tensors: dict[str, str]) -> list[dict]:
        """Turn the inputs that `tensors` names into initializers, in place; return their files' entries."""
        graph, used = model.graph, set()
        read = {name for node in graph.node for name in node.input}
        for value in [value for value in graph.input if value.name in tensors]:
            graph.input.remove(value)
            if value.name in read:
                graph.initializer.append(self.initializer(tensors[value.name], value.name))
                used.add(self.places[tensors[value.name]][0])
        return [entry for file, entry in self.entries.items() if file in used]
