"""Resuming a run, and what the corpus promises."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from didi.corpus import SOURCES, documents, split_of
from didi.tokenizer import MASK, train_tokenizer
from tokenizers import Tokenizer

TRAINING = Path(__file__).resolve().parent.parent
SHIPPED_TOKENIZER = TRAINING.parent / "stories-mdlm" / "tokenizer.json"


def run_training(run: Path, *extra: str) -> None:
    sizes = ["--hidden", "32", "--blocks", "2", "--heads", "2", "--cond", "16", "--context", "32", "--batch-tokens", "256"]
    command = [sys.executable, "-m", "didi.train", "--run", str(run), "--tokenizer", str(SHIPPED_TOKENIZER), *sizes]
    subprocess.run([*command, "--warmup", "2", "--validate-every", "4", *extra], cwd=TRAINING, check=True, timeout=300)


@pytest.mark.parametrize("objective", ["masked-diffusion", "causal"])
def test_a_resumed_run_follows_the_same_curve(tmp_path, objective):
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


def test_splits_are_by_document_and_disjoint():
    for source in SOURCES:
        splits = {name: set(documents(source, name)) for name in ("train", "validation", "test")}
        assert all(splits.values()), source
        assert not splits["train"] & (splits["validation"] | splits["test"])
        assert all(split_of(text) == name for name, texts in splits.items() for text in texts)


def test_the_shipped_tokenizer_is_what_the_code_trains():
    fresh = train_tokenizer(Tokenizer.from_file(str(SHIPPED_TOKENIZER)).get_vocab_size())
    assert fresh.to_str() == Tokenizer.from_file(str(SHIPPED_TOKENIZER)).to_str()


def test_tokenizer_round_trips_any_text():
    tokenizer = Tokenizer.from_file(str(SHIPPED_TOKENIZER))
    for text in ("Once upon a time", "naïve café 🙂 日本", "\n\n  two  spaces\t"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.token_to_id(MASK) == tokenizer.get_vocab_size() - 1
