"""Read a checkpoint of one or several safetensors files, tensor by tensor."""

import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import ConversionError
from .layout import Layout
from .tables import Family

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INDEX = "model.safetensors.index.json"


def shape_text(shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


def shards(folder: Path) -> list[Path]:
    """Return the checkpoint's files. Raise ConversionError if one is missing."""
    index = folder / INDEX
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    for name in names:
        if Path(name).name != name:
            raise ConversionError(f"{INDEX} names {name!r}, which is not a file of the folder")
        if not (folder / name).is_file():
            where = f"; {INDEX} names it" if index.is_file() else f", and no {INDEX}"
            raise ConversionError(f"{folder} has no {name}{where}")
    return [folder / name for name in names]


class Checkpoint:
    """The tensors of a folder, under the names that the family has for them today."""

    def __init__(self, folder: Path, family: Family):
        self.names: dict[str, str] = {}  # name today -> name in the file
        self.files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        for path in shards(folder):
            try:
                with safe_open(path, "pt") as file:
                    for stored in file.keys():
                        name, part = family.current(stored), file.get_slice(stored)
                        self.names[name] = stored
                        self.files[name] = path
                        self.shapes[name], self.dtypes[name] = tuple(part.get_shape()), part.get_dtype()
            except SafetensorError as error:
                raise ConversionError(f"{path} is not a safetensors file: {error}") from error

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, or the part of its rows that a name ending in [K/N] means.

        The file is opened for each tensor, so that pages of one that is done can be dropped.
        """
        name, part, parts = split_name(name)
        with safe_open(self.files[name], "pt") as file:
            if parts == 1:
                return file.get_tensor(self.names[name])
            rows = self.shapes[name][0] // parts
            return file.get_slice(self.names[name])[part * rows : (part + 1) * rows]

    def faults(self, family: Family, layout: Layout) -> list[str]:
        """Return a line for each tensor that is missing, unknown, of another shape or type."""
        lines, expected = [], {}
        for slot, shape in layout.slots().items():
            name, _, parts = split_name(family.tensor(slot))
            expected[name] = (shape[0] * parts, *shape[1:])
        for name, shape in expected.items():
            found = self.shapes.get(name)
            if found is None:
                lines.append(f"{name} is missing; expected {shape_text(shape)}")
            elif name == family.names.get("segment") and found[1:] == shape[1:]:
                pass  # of any number of segments the first is used
            elif found != shape:
                lines.append(f"{name} is {shape_text(found)}; expected {shape_text(shape)}")
        for name in sorted(self.shapes.keys() - expected.keys()):
            shape = self.shapes[name]
            if re.fullmatch(family.ignored, name):
                continue
            copied = family.copies.get(name)
            if copied not in layout.slots():
                lines.append(f"{name} {shape_text(shape)} is not part of the architecture")
            elif not self.equal(name, family.tensor(copied)):
                lines.append(f"{name} differs from {family.tensor(copied)}, which config.json ties it to")
        for name in expected.keys() & self.dtypes.keys():
            if self.dtypes[name] not in DTYPES:
                lines.append(f"{name} is of type {self.dtypes[name]}; expected one of {', '.join(DTYPES)}")
        return lines

    def equal(self, name: str, other: str) -> bool:
        if other not in self.shapes or self.shapes[name] != self.shapes[other]:
            return False
        return torch.equal(self.tensor(name), self.tensor(other))


def split_name(name: str) -> tuple[str, int, int]:
    """Return a tensor's name and which of how many parts of its rows is meant."""
    match = re.fullmatch(r"(.*)\[(\d+)/(\d+)\]", name)
    return (match[1], int(match[2]), int(match[3])) if match else (name, 0, 1)
