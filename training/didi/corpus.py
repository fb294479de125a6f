"""What models are trained on: stories or proteins, split by document, as batches of token windows.

A batch is a function of (seed, step), so a resumed run sees the same batches as one that was never
interrupted.
"""

import hashlib
import lzma
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from tokenizers import Tokenizer
from torch import Tensor

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
SEPARATOR = "<|endoftext|>"

# Share of the training windows drawn from each file. The simple stories are the easiest to learn.
SOURCES = {
    "1-tinystories.txt.xz": 0.40,
    "5-tinystories-more.txt.xz": 0.38,
    "6-storybooks.txt.xz": 0.09,
    "2-children.txt.xz": 0.08,
    "3-fairytales.txt.xz": 0.05,
}
CORPORA = {"stories": SOURCES, "proteins": {"7-proteins.fasta.xz": 1.0}}
SHARES = {name: share for sources in CORPORA.values() for name, share in sources.items()}
SPLITS = ("train", "validation", "test")

# Some quotation marks of files 1 and 5 were decoded with the wrong code page.
_MOJIBAKE = {"â€œ": '"', "â€™": "'", "â€˜": "'", "â€": '"'}

# Matches a paragraph of a book that is not part of its story: title pages, advertisements, transcribers'
# notes.
_FRONT_MATTER = re.compile(
    r"12mo|\bCloth\b|Illustrated\b|Price,? per|copyright|Transcriber|Project Gutenberg|\bPublish|printed in|"
    r"^by$|^page \d+|^\W*contents\W*$|^(BY |COPYRIGHT|ILLUSTRATED)",
    re.IGNORECASE | re.MULTILINE,
)
_BOOK_CHARACTERS = 20_000  # a longer document is a book
_SENTENCE_CHARACTERS = 200  # a longer tail without a full stop is verse
_SENTENCE_END = re.compile(r"[.!?][\"')]*(?=\s|$)")

CALIBRATION_WINDOWS = 160  # default number
CALIBRATION_LENGTH = 128  # tokens of a window, or the context if that is shorter


def split_of(document: str) -> str:
    """Return the split of a document, which its hash decides: 90% train, 5% validation, 5% test."""
    bucket = int.from_bytes(hashlib.sha256(document.encode()).digest()[:4], "big") % 100
    return "validation" if bucket < 5 else "test" if bucket < 10 else "train"


def clean(document: str) -> str:
    """Return the document without front matter, and without a fragment of a sentence at its end.

    Return "" for a document that starts in the middle of a sentence.
    """
    if len(document) > _BOOK_CHARACTERS:
        paragraphs = document.split("\n\n")
        document = "\n\n".join(p for p in paragraphs if not _FRONT_MATTER.search(p)).strip()
    elif document[0].islower():
        return ""
    ends = [match.end() for match in _SENTENCE_END.finditer(document)]
    tail = document[ends[-1] :] if ends else document
    is_fragment = len(tail) < _SENTENCE_CHARACTERS and not re.fullmatch(r"\W*the end\W*", tail, re.IGNORECASE)
    return document[: ends[-1]] if ends and is_fragment else document


def is_fasta(source: str) -> bool:
    return source.endswith(".fasta.xz")


def raw_documents(source: str) -> list[str]:
    """Return every document of one corpus file, with quotation marks repaired but not cleaned.

    A document of a FASTA file is a sequence, without its header.
    """
    text = lzma.open(CORPUS / source, "rt", encoding="utf-8").read()
    if is_fasta(source):
        return ["".join(record.splitlines()[1:]) for record in text.split(">")[1:]]
    for wrong, right in _MOJIBAKE.items():
        text = text.replace(wrong, right)
    parts = (part.strip() for part in text.split(SEPARATOR))
    return [part for part in parts if part]


def documents(source: str, split: str) -> list[str]:
    """Return the cleaned documents of one corpus file that belong to `split`, in file order.

    The text before cleaning decides the split, so a change to the cleaning moves no document to another
    split. A sequence is not cleaned.
    """
    if is_fasta(source):
        return [raw for raw in raw_documents(source) if split_of(raw) == split]
    cleaned = (clean(raw) for raw in raw_documents(source) if split_of(raw) == split)
    return [document for document in cleaned if document]


@dataclass(frozen=True)
class Stream:
    """One split of one source as a single sequence of ids, with an end-of-text id after every document."""

    ids: np.ndarray  # [T] int64
    starts: np.ndarray  # [D] index of the first token of each document
    characters: int  # length of the text that `ids` encodes, without end-of-text


def load_stream(source: str, split: str, tokenizer: Tokenizer) -> Stream:
    """Encode one split of a source. Raise ValueError if it holds no document."""
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


def load_streams(split: str, tokenizer: Tokenizer, corpus: str = "stories") -> dict[str, Stream]:
    """Encode one split of every source of a corpus: name -> stream."""
    return {source: load_stream(source, split, tokenizer) for source in CORPORA[corpus]}


class Batches:
    """Random training windows, mixed over sources and lengths.

    Window lengths vary from batch to batch because the server's canvases do.
    """

    LENGTHS = {0.25: 0.15, 0.5: 0.35, 1.0: 0.5}  # share of the context -> probability

    def __init__(self, streams: dict[str, Stream], context: int, tokens: int, seed: int):
        self.streams, self.context, self.tokens, self.seed = streams, context, tokens, seed

    def at(self, step: int) -> tuple[np.ndarray, Generator]:
        """Return the windows [B, L] of step `step`, and the generator that draws that step's noise."""
        rng = np.random.default_rng((self.seed, step))
        share = rng.choice(list(self.LENGTHS), p=list(self.LENGTHS.values()))
        L = max(1, int(self.context * share))
        return random_windows(self.streams, max(1, self.tokens // L), L, rng), rng


def random_windows(streams: dict[str, Stream], count: int, length: int, rng: Generator) -> np.ndarray:
    """Draw windows [count, length] from the sources by their share.

    Half of the windows start where a document starts, so that openings are learned well.
    """
    names = list(streams)
    weights = np.array([SHARES[name] for name in names])
    rows = []
    for name in rng.choice(names, size=count, p=weights / weights.sum()):
        stream = streams[name]
        last = len(stream.ids) - length
        opening = rng.random() < 0.5
        start = stream.starts[rng.integers(len(stream.starts))] if opening else rng.integers(last + 1)
        start = min(int(start), last)
        rows.append(stream.ids[start : start + length])
    return np.stack(rows)


def split_windows(
    split: str, tokenizer: Tokenizer, count: int, length: int, seed: int, corpus: str = "stories"
) -> Tensor:
    """Draw windows [count, length] of a split of a corpus as training draws them."""
    rng = np.random.default_rng(seed)
    return torch.as_tensor(random_windows(load_streams(split, tokenizer, corpus), count, length, rng))


def evaluation_windows(stream: Stream, length: int, count: int | None = None) -> np.ndarray:
    """Return consecutive windows [N, length] that tile the stream; at most `count` of them, evenly spread."""
    total = len(stream.ids) // length
    windows = stream.ids[: total * length].reshape(total, length)
    if count is None or count >= total:
        return windows
    return windows[np.linspace(0, total - 1, count).astype(int)]


def calibration_windows(
    tokenizer: Path, context: int, mask_id: int, count: int, file: Path | None, corpus: str = "stories"
) -> Tensor:
    """Return the text windows [N, L] that int8 graphs are calibrated on, with N <= `count`.

    They tile the text of `file` evenly; without a file they are drawn from the validation split of `corpus`.
    Raise ValueError if the file's text is shorter than one window.
    """
    known, length = Tokenizer.from_file(str(tokenizer)), min(CALIBRATION_LENGTH, context)
    if file is None:
        return split_windows("validation", known, count, length, 5, corpus)
    end, ids = known.token_to_id(SEPARATOR), []
    for document in file.read_text(encoding="utf-8").split(SEPARATOR):
        ids += [i for i in known.encode(document.strip()).ids if i != mask_id] + [end]
    total = len(ids) // length
    if total == 0:
        raise ValueError(f"{file} has {len(ids)} tokens, and int8 is calibrated on windows of {length}")
    rows = np.linspace(0, total - 1, min(count, total)).astype(int)
    return torch.tensor(ids[: total * length]).view(total, length)[torch.from_numpy(rows)]
