"""Write the model folder of a checkpoint of FAMILIES."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import Tensor

from ..diffusion import ALPHA_MIN, T_MIN
from .errors import ConversionError
from ..export import chat_format, file_entry
from ..graphs.int8 import LARGEST
from ..graphs.trace import CUDA_OPSET, OPSET, WEIGHTS, to_model
from .checkpoint import DTYPES, Checkpoint, split_name
from .layout import Layout
from .store import Item, Store
from .tables import FAMILIES, Family
from .tokens import Vocabulary, end_of_text, mask_in, read_json, renumbered, vocabulary_of
from .trunk import FamilyDenoise

INT8 = "int8."  # before the names of matrices in 8 bits and their scales, in the files
LONGEST = 4_096  # context unless it is asked for; tables of angles grow with it


@dataclass(frozen=True)
class Source:
    """A checkpoint that fits its family."""

    family: Family
    layout: Layout
    vocabulary: Vocabulary
    checkpoint: Checkpoint
    stored: torch.dtype | None  # None: as the checkpoint has them

    def matrix(self, slot: str) -> Tensor:
        """Return a parameter as the graphs take it: matrices [inputs, outputs], tables in our ids."""
        tensor = self.checkpoint.tensor(self.family.tensor(slot))
        if slot in ("embedding", "head.weight", "head.bias"):
            tensor = self.vocabulary.rows(tensor)
        if slot == "segment":
            tensor = tensor[:1]
        if tensor.ndim == 2 and slot not in ("embedding", "positions", "segment"):
            tensor = tensor.T
        return tensor.to(self.dtype(slot)).contiguous()

    def shape(self, slot: str) -> tuple[int, ...]:
        shape = self.layout.slots()[slot]
        if slot in ("embedding", "head.weight", "head.bias"):
            shape = (self.vocabulary.padded, *shape[1:])
        transposed = len(shape) == 2 and slot not in ("embedding", "positions", "segment")
        return shape[::-1] if transposed else shape

    def dtype(self, slot: str) -> torch.dtype:
        """Return the type that a parameter is stored in: vectors in float32."""
        if len(self.layout.slots()[slot]) == 1:
            return torch.float32
        name, _, _ = split_name(self.family.tensor(slot))
        return self.stored or DTYPES[self.checkpoint.dtypes[name]]

    def item(self, slot: str) -> Item:
        return Item(slot, self.shape(slot), self.dtype(slot), partial(self.matrix, slot))

    def integer_items(self, slot: str) -> list[Item]:
        """Return an int8 matrix and the scale of each of its columns."""
        columns = self.shape(slot)[1]
        stem = slot.removesuffix(".weight")

        def scale() -> Tensor:
            largest = self.matrix(slot).abs().amax(dim=0).float()
            return torch.where(largest > 0, largest / LARGEST, 1.0)

        def integers() -> Tensor:
            # In slices of rows, so that no float32 copy of the matrix is made.
            by_column, matrix = scale(), self.matrix(slot)
            made = torch.empty(matrix.shape, dtype=torch.int8)
            for rows, out in zip(matrix.split(256), made.split(256)):
                out.copy_((rows.float() / by_column).round())
            return made

        return [
            Item(f"{INT8}{stem}.scale", (columns,), torch.float32, scale),
            Item(f"{INT8}{slot}", self.shape(slot), torch.int8, integers),
        ]

    def block_matrices(self) -> list[str]:
        slots = self.layout.slots()
        return [slot for slot, shape in slots.items() if slot.startswith("blocks.") and len(shape) == 2]


def detect(config: dict) -> str | None:
    """Return the family of the architecture that config.json names."""
    names = config.get("architectures") or []
    return next((key for key, family in FAMILIES.items() if set(names) & set(family.architectures)), None)


def open_source(
    folder: Path, family: Family, definition: dict, context: int | None, stored: torch.dtype | None
) -> tuple[Source, dict]:
    """Return a checkpoint and its config.json. Raise ConversionError that names every bad tensor."""
    config = read_json(folder / "config.json")
    if not config:
        raise ConversionError(f"{folder} has no config.json, which the sizes are read from")
    settings = read_json(folder / "tokenizer_config.json")
    try:
        if config.get("mask_token_id") is None:
            config["mask_token_id"] = mask_in(definition, settings)
        layout = family.layout({name: value for name, value in config.items() if value is not None})
    except KeyError as error:
        raise ConversionError(f"config.json has no {error.args[0]}") from error
    checkpoint = Checkpoint(folder, family)
    lines = checkpoint.faults(family, layout)
    if lines:
        raise ConversionError("\n  ".join([f"{len(lines)} tensors do not fit the architecture", *lines]))
    longest = layout.context
    if context is not None and context > longest and layout.learned_positions:
        raise ConversionError(f"--context {context}: the checkpoint has {longest} positions")
    vocabulary = vocabulary_of(definition, layout.mask_id, layout.vocab_size)
    source = Source(family, layout, vocabulary, checkpoint, stored)
    return source, {"config": config, "settings": settings, "context": context or min(longest, LONGEST)}


def graph(source: Source, context: int, compute: torch.dtype, store: Store, integer: bool) -> tuple:
    """Return the graph of a precision and the entries of the files that it reads."""
    layout = source.layout if source.layout.learned_positions else replace(source.layout, context=context)
    module = FamilyDenoise(layout, source.vocabulary.size, compute)
    # Of a matrix in 8 bits the name is that of the matrix.
    whole = {name: item for name, (_, _, item) in store.places.items() if not name.startswith(INT8)}
    if integer:
        for slot in source.block_matrices():
            whole.pop(slot, None)
        found = {name: item for name, (_, _, item) in store.places.items() if name.startswith(INT8)}
        whole |= {name.removeprefix(INT8): item for name, item in found.items()}
    # Expanded from one value: nothing reads the weights of the example.
    weights = {name: torch.empty(1, dtype=one.dtype).expand(one.shape) for name, one in whole.items()}
    model = to_model(module, OPSET if compute == torch.float32 else CUDA_OPSET, weights)
    return model, store.attach(model, {WEIGHTS + name: item.name for name, item in whole.items()})


def write_family_folder(
    folder: Path,
    source_folder: Path,
    family: str,
    *,
    name: str,
    licence: str,
    tokenizer: Path,
    precisions: Sequence[str],
    context: int | None,
    stored: torch.dtype | None,
) -> None:
    """Write weights, graphs, tokenizer, chat template and `model.json` into `folder`, which is empty.

    Raise ConversionError if the checkpoint or its tokenizer cannot be used.
    """
    definition = json.loads(tokenizer.read_text(encoding="utf-8"))
    source, about = open_source(source_folder, FAMILIES[family], definition, context, stored)
    layout, vocabulary, slots = source.layout, source.vocabulary, source.layout.slots()
    parameters = sum(torch.Size(shape).numel() for shape in slots.values())
    heads = f"{layout.heads} heads ({layout.kv_heads} of keys)"
    sizes = f"hidden {layout.hidden}, {layout.blocks} blocks, {heads}"
    print(f"{family}: {parameters / 1e6:.1f}M parameters, {sizes}, {vocabulary.size} ids", flush=True)
    tokenizer_file = folder / "tokenizer.json"
    changed = renumbered(definition, vocabulary)
    tokenizer_file.write_text(json.dumps(changed, ensure_ascii=False), encoding="utf-8")
    end = end_of_text(definition, about["settings"], about["config"], vocabulary)

    store, matrices = Store(folder), source.block_matrices()
    common = sorted(slots.keys() - set(matrices), key=lambda slot: -source.dtype(slot).itemsize)
    wanted = {"common": [source.item(slot) for slot in common]}
    if set(precisions) - {"int8"}:
        wanted["float"] = [source.item(slot) for slot in matrices]
    if "int8" in precisions:
        made = [item for slot in matrices for item in source.integer_items(slot)]
        wanted["int8"] = sorted(made, key=lambda item: -item.dtype.itemsize)
    for group, items in wanted.items():
        started = time.perf_counter()
        print(f"{group}: {sum(item.bytes for item in items) / 1e6:.0f} MB ...", end=" ", flush=True)
        store.write(group, items)
        print(f"{time.perf_counter() - started:.0f} s", flush=True)
    graphs = {}
    for precision in precisions:
        started = time.perf_counter()
        path = folder / f"denoise.{precision}.onnx"
        print(f"{path.name} ...", end=" ", flush=True)
        compute = torch.float16 if precision == "fp16" else torch.float32
        model, data = graph(source, about["context"], compute, store, precision == "int8")
        onnx.save(model, str(path))
        graphs[precision] = file_entry(path) | {"data": data}
        print(f"{time.perf_counter() - started:.0f} s", flush=True)
    manifest = {
        "format_version": 1,
        "name": name,
        "description": FAMILIES[family].about,
        "licence": licence,
        "family": family,
        "parameters": parameters,
        "vocab_size": vocabulary.size,
        "mask_token_id": vocabulary.size - 1,
        "end_of_text_token_id": end,
        "context_length": about["context"],
        "schedule": {"kind": "log-linear", "alpha_min": ALPHA_MIN, "t_min": T_MIN},
        "conditioning": "none",
        "mask_logit": "removed",
        "tokenizer": file_entry(tokenizer_file),
        "graphs": {"denoise": graphs},
    }
    chat = chat_format(source_folder, tokenizer_file, vocabulary.size - 1)
    if chat is not None:
        template, fields = chat
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        manifest["chat"] = {"template": file_entry(folder / "chat_template.jinja"), **fields}
    (folder / "model.json").write_text(json.dumps(manifest, indent=2) + "\n")
