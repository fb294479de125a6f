"""The training text: children's stories, split by document, served as batches.

Every batch is a pure function of (seed, step), so a resumed run sees the same batches as one
that was never interrupted.
"""

import hashlib
import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
SEPARATOR = "<|endoftext|>"

# Share of the training windows drawn from each file. The simple stories are the most learnable.
SOURCES = {
    "1-tinystories.txt.xz": 0.70,
    "2-children.txt.xz": 0.18,
    "3-fairytales.txt.xz": 0.12,
}
SPLITS = ("train", "validation", "test")

# A few hundred quotation marks of file 1 were decoded with the wrong code page.
_MOJIBAKE = {"â€œ": '"', "â€™": "'", "â€˜": "'", "â€": '"'}


def split_of(document: str) -> str:
    """Which split a document belongs to: its hash decides (90% train, 5% validation, 5% test)."""
    bucket = int.from_bytes(hashlib.sha256(document.encode()).digest()[:4], "big") % 100
    return "validation" if bucket < 5 else "test" if bucket < 10 else "train"


def documents(source: str, split: str) -> list[str]:
    """The documents of one file of the corpus that belong to `split`, in file order."""
    text = lzma.open(CORPUS / source, "rt", encoding="utf-8").read()
    for wrong, right in _MOJIBAKE.items():
        text = text.replace(wrong, right)
    parts = (part.strip() for part in text.split(SEPARATOR))
    return [part for part in parts if part and split_of(part) == split]


@dataclass(frozen=True)
class Stream:
    """One source and split as a single run of ids, an end-of-text id after every document."""

    ids: np.ndarray  # [T] int64
    starts: np.ndarray  # [D] where each document starts
    characters: int  # characters of text behind `ids`, end-of-text not counted


def load_stream(source: str, split: str, tokenizer: Tokenizer) -> Stream:
    """Encodes a source's split. Raises ValueError if the split holds no document."""
    texts = documents(source, split)
    if not texts:
        raise ValueError(f"{source} has no document in the {split} split")
    end = tokenizer.token_to_id(SEPARATOR)
    pieces = [encoding.ids + [end] for encoding in tokenizer.encode_batch(texts)]
    lengths = np.array([len(piece) for piece in pieces])
    return Stream(
        ids=np.concatenate([np.asarray(piece, dtype=np.int64) for piece in pieces]),
        starts=np.concatenate(([0], np.cumsum(lengths)[:-1])),
        characters=sum(len(text) for text in texts),
    )


class Batches:
    """Random training windows, mixed over sources and lengths.

    Half of the windows start where a document starts, so that openings are well learnt. Window
    lengths vary from batch to batch because the server's canvases do.
    """

    LENGTHS = {0.25: 0.15, 0.5: 0.35, 1.0: 0.5}  # share of the context -> probability

    def __init__(self, streams: dict[str, Stream], context: int, tokens: int, seed: int):
        self.streams, self.context, self.tokens, self.seed = streams, context, tokens, seed

    def at(self, step: int) -> tuple[np.ndarray, np.random.Generator]:
        """Windows [B, L] of step `step`, with the generator to draw that step's noise from."""
        rng = np.random.default_rng((self.seed, step))
        share = rng.choice(list(self.LENGTHS), p=list(self.LENGTHS.values()))
        L = max(1, int(self.context * share))
        return random_windows(self.streams, max(1, self.tokens // L), L, rng), rng


def random_windows(streams: dict[str, Stream], count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Windows [count, length]: sources by their share, and half of them start where a document starts."""
    names = list(streams)
    weights = np.array([SOURCES[name] for name in names])
    rows = []
    for name in rng.choice(names, size=count, p=weights / weights.sum()):
        stream = streams[name]
        last = len(stream.ids) - length
        start = stream.starts[rng.integers(len(stream.starts))] if rng.random() < 0.5 else rng.integers(last + 1)
        start = min(int(start), last)
        rows.append(stream.ids[start : start + length])
    return np.stack(rows)


def evaluation_windows(stream: Stream, length: int, count: int | None = None) -> np.ndarray:
    """Consecutive windows [N, length] that tile the stream; at most `count`, evenly spread."""
    total = len(stream.ids) // length
    windows = stream.ids[: total * length].reshape(total, length)
    if count is None or count >= total:
        return windows
    return windows[np.linspace(0, total - 1, count).astype(int)]
