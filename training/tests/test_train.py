"""Resuming a run, and what the corpus promises."""

import csv
import signal
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from didi import train as training
from didi.corpus import SOURCES, clean, documents, raw_documents, split_of
from didi.tokenizer import MASK, train_tokenizer
from tokenizers import Tokenizer

SHIPPED_TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "stories-mdlm" / "tokenizer.json"


@pytest.fixture(scope="module")
def run_training():
    """Trains a model that is far too small, with the corpus encoded once for all runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "load_stream", cache(training.load_stream))
        patch.setattr(signal, "signal", lambda *_: None)  # Ctrl-C stays pytest's
        patch.setattr(training, "Tokenizer", SimpleNamespace(from_file=cache(Tokenizer.from_file)))

        def run(folder: Path, *flags: str) -> None:
            sizes = ["--hidden", "32", "--blocks", "2", "--heads", "2", "--cond", "16", "--context", "32", "--batch-tokens", "256"]
            argv = ["--run", str(folder), "--tokenizer", str(SHIPPED_TOKENIZER), *sizes, "--warmup", "2", "--validate-every", "4"]
            patch.setattr(sys, "argv", ["train", *argv, *flags])
            training.train(training.parse_args())

        yield run


@pytest.mark.parametrize("objective", ["masked-diffusion", "causal"])
def test_a_resumed_run_follows_the_same_curve(run_training, tmp_path, objective):
    flags = ["--objective", objective, "--steps", "12", "--dropout", "0.1"]
    run_training(tmp_path / "whole", *flags)
    run_training(tmp_path / "parts", *flags)
    # Back to the state in which the rate began to fall, then on to the end.
    run_training(tmp_path / "parts", *flags, "--resume", "--resume-from", str(tmp_path / "parts" / "stable.pt"))
    whole = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    parts = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert whole["step"] == parts["step"] == 12
    for key, value in whole["ema"].items():
        assert torch.equal(value, parts["ema"][key]), key
    curves = []
    for name in ("whole", "parts"):
        with (tmp_path / name / "log.csv").open() as file:
            curves.append([(row["step"], row["tokens"], row["validation_nats"]) for row in csv.DictReader(file)])
    assert curves[0] == curves[1]
    assert [int(step) for step, *_ in curves[0]] == [4, 8, 12]
    best = torch.load(tmp_path / "whole" / "best.pt", weights_only=True)["step"]
    assert (str(best)) == min(curves[0], key=lambda row: float(row[2]))[0]


def test_cleaning_removes_fragments_and_front_matter_only():
    assert clean("mama was packing. She left.") == ""
    assert clean('Tom ran. "Wait!" said Ann. Then the') == 'Tom ran. "Wait!" said Ann.'
    assert clean("Tom ran home.\n\nThe End") == "Tom ran home.\n\nThe End"
    story = "\n\n".join(["Once there was a bear."] * 1000)
    assert clean(f"12mo. Cloth. Illustrated.\n\n{story}") == story
    assert clean("The book was published. It was illustrated.") == "The book was published. It was illustrated."


def test_splits_are_by_document_and_disjoint():
    for source in SOURCES:
        splits = {name: set(documents(source, name)) for name in ("train", "validation", "test")}
        assert all(splits.values()), source
        assert not splits["train"] & (splits["validation"] | splits["test"])
        kept = sum(len(texts) for texts in splits.values())
        assert kept >= 0.98 * len(raw_documents(source)), "cleaning drops fragments, not documents"


def test_the_shipped_tokenizer_is_what_the_code_trains():
    fresh = train_tokenizer(Tokenizer.from_file(str(SHIPPED_TOKENIZER)).get_vocab_size())
    assert fresh.to_str() == Tokenizer.from_file(str(SHIPPED_TOKENIZER)).to_str()


def test_tokenizer_round_trips_any_text():
    tokenizer = Tokenizer.from_file(str(SHIPPED_TOKENIZER))
    for text in ("Once upon a time", "naïve café 🙂 日本", "\n\n  two  spaces\t"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.token_to_id(MASK) == tokenizer.get_vocab_size() - 1
