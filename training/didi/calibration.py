"""The text that int8 graphs are calibrated on: a file, or the corpus' validation split."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from .backbone import BackboneConfig
from .corpus import SEPARATOR, SOURCES, load_stream, random_windows

WINDOWS = 160  # by default
LENGTH = 128  # tokens of a window, or the context if that is shorter


def calibration_windows(tokenizer_file: Path, config: BackboneConfig, count: int, file: Path | None) -> Tensor:
    """At most `count` windows [N, L] of the file's text, or so many of the validation split, drawn as in training.

    Raises ValueError if the text is shorter than a window.
    """
    tokenizer, length = Tokenizer.from_file(str(tokenizer_file)), min(LENGTH, config.context)
    if file is None:
        streams = {name: load_stream(name, "validation", tokenizer) for name in SOURCES}
        return torch.from_numpy(random_windows(streams, count, length, np.random.default_rng(5)))
    end, ids = tokenizer.token_to_id(SEPARATOR), []
    for document in file.read_text(encoding="utf-8").split(SEPARATOR):
        ids += [i for i in tokenizer.encode(document.strip()).ids if i != config.mask_id] + [end]
    total = len(ids) // length
    if total == 0:
        raise ValueError(f"{file} has {len(ids)} tokens, and int8 is calibrated on windows of {length}")
    rows = np.linspace(0, total - 1, min(count, total)).astype(int)
    return torch.tensor(ids[: total * length]).view(total, length)[torch.from_numpy(rows)]
