"""Write the model folder of a checkpoint of FAMILIES."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
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

# Before the names of matrices, and scales, of one precision in the files.
HALF, INT8 = "half.", "int8."
LONGEST = 4_096  # context unless it is asked for; tables of angles grow with it


TABLES = ("embedding", "positions", "segment")  # rows are gathered from them
SLAB = 256  # rows of a matrix that are made at once
TABLE_SLAB = 8_192


@dataclass(frozen=True)
class Source:
    """A checkpoint that fits its family."""

    family: Family
    layout: Layout
    vocabulary: Vocabulary
    checkpoint: Checkpoint

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the parameters of the graphs: matrices as [inputs, outputs], ids as ours."""
        slots, shapes = self.layout.slots(), {}
        for slot, shape in (slots | {"head.weight": slots["embedding"]}).items():
            if slot in ("embedding", "head.weight", "head.bias"):
                shape = (self.vocabulary.padded, *shape[1:])
            shapes[slot] = shape[::-1] if len(shape) == 2 and slot not in TABLES else shape
        return shapes

    def matrices(self) -> list[str]:
        return [slot for slot, shape in self.shapes().items() if len(shape) == 2 and slot not in TABLES]

    def name(self, slot: str) -> str:
        """Return the checkpoint's name of a parameter."""
        return self.family.tensor("embedding" if slot == "head.weight" and self.layout.tied else slot)

    def slabs(self, slot: str) -> Iterator[Tensor]:
        """Yield a parameter of `shapes` in slabs of rows, in the checkpoint's type."""
        tensor, shape = self.checkpoint.tensor(self.name(slot)), self.shapes()[slot]
        in_ids = slot in ("embedding", "head.weight", "head.bias")
        if slot in TABLES or len(shape) == 1:
            for start in range(0, shape[0], TABLE_SLAB):
                end = min(start + TABLE_SLAB, shape[0])
                yield self.vocabulary.rows(tensor, start, end) if in_ids else tensor[start:end]
        else:
            for columns in tensor.split(SLAB, dim=1):
                yield (self.vocabulary.rows(columns) if in_ids else columns).T

    def item(self, slot: str, dtype: torch.dtype = torch.float32, prefix: str = "") -> Item:
        """Return what is stored of a parameter; a table keeps its type."""
        if slot in TABLES:
            dtype = DTYPES[self.checkpoint.dtypes[split_name(self.name(slot))[0]]]
        return Item(prefix + slot, self.shapes()[slot], dtype, partial(self.slabs, slot))

    def integer_items(self, slot: str) -> list[Item]:
        """Return an int8 matrix and the scale of each of its columns."""
        shape = self.shapes()[slot]

        def scale() -> Tensor:
            tensor = self.checkpoint.tensor(self.name(slot))
            largest = torch.cat([rows.abs().amax(dim=1).float() for rows in tensor.split(SLAB)])
            return torch.where(largest > 0, largest / LARGEST, 1.0)

        def integers() -> Iterator[Tensor]:
            by_column = scale()
            return ((slab.float() / by_column).round() for slab in self.slabs(slot))

        name = f"{INT8}{slot.removesuffix('.weight')}.scale"
        return [
            Item(name, shape[1:], torch.float32, lambda: [scale()]),
            Item(f"{INT8}{slot}", shape, torch.int8, integers),
        ]


def detect(config: dict) -> str | None:
    """Return the family of the architecture that config.json names."""
    names = config.get("architectures") or []
    return next((key for key, family in FAMILIES.items() if set(names) & set(family.architectures)), None)


def open_source(
    folder: Path, family: Family, definition: dict, context: int | None = None
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
    source = Source(family, layout, vocabulary, checkpoint)
    return source, {"config": config, "settings": settings, "context": context or min(longest, LONGEST)}


def items_of(source: Source, precision: str) -> dict[str, list[Item]]:
    """Return what the graph of a precision reads: groups of files, and the tensors of each."""
    shapes, matrices = source.shapes(), source.matrices()
    in_blocks = [slot for slot in matrices if slot.startswith("blocks.")]
    rest = [slot for slot in shapes if slot not in matrices]
    groups = {"common": [source.item(slot) for slot in rest]}
    if precision == "fp16":
        return groups | {"half": [source.item(slot, torch.float16, HALF) for slot in matrices]}
    groups["head"] = [source.item(slot) for slot in matrices if slot not in in_blocks]
    if precision == "fp32":
        return groups | {"float": [source.item(slot) for slot in in_blocks]}
    return groups | {"int8": [item for slot in in_blocks for item in source.integer_items(slot)]}


def graph(source: Source, context: int, store: Store, precision: str) -> tuple:
    """Return the graph of a precision and the entries of the files that it reads."""
    layout = source.layout if source.layout.learned_positions else replace(source.layout, context=context)
    half = precision == "fp16"
    module = FamilyDenoise(layout, source.vocabulary.size, torch.float16 if half else torch.float32)
    items = {
        one.name.removeprefix(HALF).removeprefix(INT8): one
        for group in items_of(source, precision).values()
        for one in group
    }
    # Expanded from one value: nothing reads the weights of the example.
    weights = {name: torch.empty(1, dtype=one.dtype).expand(one.shape) for name, one in items.items()}
    model = to_model(module, CUDA_OPSET if half else OPSET, weights)
    return model, store.attach(model, {WEIGHTS + name: one.name for name, one in items.items()})


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
) -> None:
    """Write weights, graphs, tokenizer, chat template and `model.json` into `folder`, which is empty.

    Raise ConversionError if the checkpoint or its tokenizer cannot be used.
    """
    definition = json.loads(tokenizer.read_text(encoding="utf-8"))
    source, about = open_source(source_folder, FAMILIES[family], definition, context)
    layout, vocabulary, slots = source.layout, source.vocabulary, source.layout.slots()
    parameters = sum(torch.Size(shape).numel() for shape in slots.values())
    heads = f"{layout.heads} heads ({layout.kv_heads} of keys)"
    sizes = f"hidden {layout.hidden}, {layout.blocks} blocks, {heads}"
    print(f"{family}: {parameters / 1e6:.1f}M parameters, {sizes}, {vocabulary.size} ids", flush=True)
    tokenizer_file = folder / "tokenizer.json"
    changed = renumbered(definition, vocabulary)
    tokenizer_file.write_text(json.dumps(changed, ensure_ascii=False), encoding="utf-8")
    end = end_of_text(definition, about["settings"], about["config"], vocabulary)

    store, groups = Store(folder), {}
    for precision in precisions:
        groups |= items_of(source, precision)
    for group, items in groups.items():
        started = time.perf_counter()
        print(f"{group}: {sum(item.bytes for item in items) / 1e6:.0f} MB ...", end=" ", flush=True)
        # In the order of the sizes of types, so that every tensor is aligned.
        store.write(group, sorted(items, key=lambda item: -item.dtype.itemsize))
        print(f"{time.perf_counter() - started:.0f} s", flush=True)
    graphs = {}
    for precision in precisions:
        started = time.perf_counter()
        path = folder / f"denoise.{precision}.onnx"
        print(f"{path.name} ...", end=" ", flush=True)
        model, data = graph(source, about["context"], store, precision)
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
