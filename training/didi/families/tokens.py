"""The vocabulary of a converted model.

The server's sampler needs the mask to be the last id, with a drawable token at every id below it. So ids
beyond the tokenizer's are left out, and the mask changes places with the last token: one id differs from the
checkpoint's, or none.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from .errors import ConversionError
from ..graphs.blocks import ALIGNMENT

# Texts of masks, where tokenizer_config.json names none.
MASKS = ("[MASK]", "<mask>", "<|mask|>", "<|mdm_mask|>")


@dataclass(frozen=True)
class Vocabulary:
    """`size` ids, of which the mask is the last; `mask_id` is its id in the checkpoint."""

    size: int
    mask_id: int

    def rows(self, table: Tensor, start: int = 0, end: int | None = None) -> Tensor:
        """Return rows of a checkpoint's table [rows, ..] in the order of our ids, up to V padded."""
        end = self.padded if end is None else min(end, self.padded)
        rows = table[start : min(end, self.size)].clone()
        for ours, theirs in ((self.size - 1, self.mask_id), (self.mask_id, self.size - 1)):
            if start <= ours < end:
                rows[ours - start] = table[theirs]
        return F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, end - start - len(rows)))

    @property
    def padded(self) -> int:
        return self.size + -self.size % ALIGNMENT

    def ours(self, id: int) -> int:
        """Return our id of a checkpoint's id."""
        return {self.mask_id: self.size - 1, self.size - 1: self.mask_id}.get(id, id)


def text_of(token: object) -> str | None:
    """Return the text of a token in tokenizer_config.json, which may be an object."""
    return token.get("content") if isinstance(token, dict) else token


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def ids_of(definition: dict) -> dict[str, int]:
    """Return the id of each token of a tokenizer.json, added ones included."""
    vocabulary = definition.get("model", {}).get("vocab")
    if not isinstance(vocabulary, dict):
        raise ConversionError("tokenizer.json has no model with a table of tokens (BPE or WordPiece)")
    return vocabulary | {one["content"]: one["id"] for one in definition.get("added_tokens", [])}


def mask_in(definition: dict, settings: dict) -> int | None:
    """Return the id of the mask that the tokenizer's files name."""
    ids = ids_of(definition)
    named = [text_of(settings.get("mask_token")), *MASKS]
    return next((ids[text] for text in named if text in ids), None)


def vocabulary_of(definition: dict, mask_id: int, rows: int) -> Vocabulary:
    """Return the vocabulary of a tokenizer.json, for an embedding of `rows` rows. Raise ConversionError."""
    size = max(*ids_of(definition).values(), mask_id) + 1
    if size > rows:
        raise ConversionError(f"tokenizer.json has id {size - 1}, and the embedding has {rows} rows")
    return Vocabulary(size, mask_id)


def renumbered(definition: dict, vocabulary: Vocabulary) -> dict:
    """Return a tokenizer.json with our ids and without the mask."""
    model = definition["model"]
    kept = {text: vocabulary.ours(id) for text, id in model["vocab"].items() if id != vocabulary.mask_id}
    added = [
        one | {"id": vocabulary.ours(one["id"])}
        for one in definition.get("added_tokens", [])
        if one["id"] != vocabulary.mask_id
    ]
    unused = dict.fromkeys(("post_processor", "truncation", "padding"))
    return definition | unused | {"model": model | {"vocab": kept}, "added_tokens": added}


def end_of_text(definition: dict, settings: dict, config: dict, vocabulary: Vocabulary) -> int:
    """Return our id of the token that ends a text: eos_token, eos_token_id or sep_token."""
    ids, named = ids_of(definition), config.get("eos_token_id")
    eos, sep = (text_of(settings.get(name)) for name in ("eos_token", "sep_token"))
    found = [ids.get(eos), named[0] if isinstance(named, list) else named, ids.get(sep), ids.get("[SEP]")]
    for id in found:
        if id is not None and id < vocabulary.size and id != vocabulary.mask_id:
            return vocabulary.ours(id)
    raise ConversionError("neither tokenizer_config.json nor config.json names the token that ends a text")
