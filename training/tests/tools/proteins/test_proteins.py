"""Measurements of proteins that need neither a server nor requirements-proteins.txt."""

import json

import numpy as np
import pytest
import torch
from didi.tokenizer import RESIDUES, residue_tokenizer
from didi.tools.proteins import evaluate
from didi.tools.proteins.evaluate import composition_divergence, frequencies, perplexity, residue_entropy
from didi.tools.proteins.evaluate import Table, measure, shuffled, spelled, summary
from didi.tools.proteins.filling import unigram

REAL = ["MKTAYIAKQR", "GSHMLEDPVV", "AAAAAWWWWW"]


def test_shuffling_keeps_the_residues_of_each_sequence():
    mixed = shuffled(REAL, 1)
    assert mixed != REAL
    assert [sorted(sequence) for sequence in mixed] == [sorted(sequence) for sequence in REAL]


def test_a_sequence_begins_with_the_residue_that_the_server_is_given(monkeypatch):
    requests = []
    answer = {"samples": [{"text": "KT"}]}
    monkeypatch.setattr(evaluate, "generate", lambda _, body: requests.append(body) or answer)
    assert evaluate.written("http://server", "rgas", 8, 3) == ["MKT"] * 3
    assert sorted(request["seed"] for request in requests) == [1, 2, 3]
    fields = [requests[0][name] for name in ("prompt", "length", "steps", "guidance")]
    assert fields == ["M", 255, 8, {"mode": "rgas"}]


def test_a_sequence_ends_before_its_first_end_of_text():
    tokenizer = residue_tokenizer()
    texts = ("MK<|endoftext|>GG", "MKTA<|endoftext|>", "<|endoftext|>MKTA")
    rows = torch.tensor([tokenizer.encode(text).ids for text in texts])
    assert spelled(tokenizer, rows) == ["MK", "MKTA", ""]


def test_perplexity_weighs_sequences_by_their_tokens():
    nats, lengths = np.array([1.0, 3.0]), np.array([300, 100])
    value, (low, high) = perplexity(nats, lengths)
    assert value == pytest.approx(np.exp(1.5))
    assert low == pytest.approx(np.exp(1)) and high == pytest.approx(np.exp(3))


def test_composition_is_compared_with_the_real_one():
    uniform = frequencies([RESIDUES * 50])
    assert uniform == pytest.approx(np.full(20, 0.05))
    assert composition_divergence([RESIDUES * 50], uniform) == pytest.approx(0)
    assert composition_divergence(["A" * 100_000], uniform) == pytest.approx(np.log(20), rel=0.01)
    assert residue_entropy("AACC") == pytest.approx(np.log(2)) and residue_entropy("") == 0


def test_the_unigram_finds_what_is_frequent():
    share, ids = np.array([0.75, 0.25]), torch.tensor([4, 2])
    x = torch.tensor([[4, 4, 2, 4], [2, 2, 2, 2]])
    assert unigram(x, ids, share, 1) == pytest.approx([0.625, 0.25])
    assert unigram(x, ids, share, 0) == pytest.approx([0.75, 0])


def test_sets_of_sequences_are_kept_and_their_figures_are_a_table(tmp_path, monkeypatch):
    table = Table(tmp_path / "sequences.json")
    table.add("real", None, lambda: REAL)
    table.add("plain", 8, lambda: ["M" * 256, "MKT"])
    again = Table(tmp_path / "sequences.json")
    again.add("plain", 8, lambda: pytest.fail("is kept"))
    assert again.sets == table.sets
    monkeypatch.setattr(evaluate, "documents", lambda *_: REAL)
    monkeypatch.setattr(evaluate, "with_family", lambda sets, _: [[True] * len(one) for one in sets])
    monkeypatch.setattr(evaluate, "nearest", lambda *_: [[0.5, 0.7, None], [None, None]])
    figures = measure(again, lambda sequences: np.full(len(sequences), 2.0), 1)
    real, plain = figures
    assert (real["with_family"], real["near_training"], real["identity"]) == (1, 0.6667, 0.6)
    assert (plain["identity"], plain["unended"], plain["length"]) == (None, 0.5, 129.5)
    assert real["generative_perplexity"] == pytest.approx(np.exp(2), abs=1e-3)
    assert real["composition"] == pytest.approx(0) and plain["composition"] > 1
    assert summary(real) == "real: perplexity 7.39 (7.39 to 7.39), 100.0% with a family"
    assert summary(json.loads(json.dumps(plain))).startswith("plain, 8 steps: ")
