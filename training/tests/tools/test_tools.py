"""The one-off measurements."""

import csv
import json
import math
import sys

import pytest
from conftest import TOKENIZER
from didi.backbone import Backbone, BackboneConfig
from didi.corpus import SOURCES, load_stream
from didi.distill import Distillation
from didi.tools import card, distill_curves
from tokenizers import Tokenizer


def test_a_uniform_model_costs_the_logarithm_of_the_vocabulary_a_token():
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    vocabulary = tokenizer.get_vocab_size()
    config = BackboneConfig(vocabulary, hidden=16, blocks=1, heads=2, cond=8, context=256)
    stream = load_stream("6-storybooks.txt.xz", "validation", tokenizer)
    # The output layer is zero at first.
    figures = card.held_out(Backbone(config), stream, tokenizer, draws=8)
    nats = math.log(vocabulary - 1)
    assert figures["nats_per_token"] == pytest.approx(nats, rel=0.02)
    characters = nats * len(stream.ids) / stream.characters
    assert figures["nats_per_character"] == pytest.approx(characters, rel=0.02)


@pytest.mark.parametrize("name", ["student", "peer"])
def test_a_card_has_figures_of_each_source(folders, tmp_path, monkeypatch, name):
    fields = ["step", "tokens", "cpu_seconds", "train_nats", *(f"validation_{i}" for i in (1, 2, 3))]
    (tmp_path / "log.csv").write_text(",".join(fields) + "\n" + ",".join("7" for _ in fields) + "\n")
    argv = ["--run", str(tmp_path), "--model", str(folders / name), "--draws", "1"]
    monkeypatch.setattr(sys, "argv", ["card", *argv])
    monkeypatch.setattr(card, "SAMPLE_LENGTH", 4)
    small = "6-storybooks.txt.xz"
    monkeypatch.setattr(card, "load_streams", lambda *args: {small: load_stream(small, *args)})
    assert set(card.LABELS) == set(SOURCES)
    card.main()
    results = json.loads((folders / name / "results.json").read_text())
    assert list(results["held_out"]) == [card.LABELS[small]] and results["training"]["step"] == 7
    assert (folders / name / "curve.svg").exists() == (name == "student")


def test_a_log_is_drawn_without_what_was_switched_off(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text(
        ",".join(["iteration", *Distillation.LOG_FIELDS])
        + "\n1,1.5,0.5,,,,\n2,1.2,0.6,-0.5,0.1,0.0,3\n3,1.1,0.7,-0.4,0.2,0.0,2\n"
    )
    monkeypatch.setattr(sys, "argv", ["distill_curves", "--run", str(tmp_path), "--out", str(tmp_path)])
    distill_curves.main()
    picture = (tmp_path / "distillation.svg").read_text()
    assert "reward (log-odds)" in picture and "entropy" not in picture
    figures = {"generative_perplexity": 90, "low": 80, "high": 95, "entropy": 4}
    judged = [{"iteration": iteration, **figures} for iteration in (0, 2)]
    with (tmp_path / "log.csv").open() as file:
        distill_curves.draw(judged, list(csv.DictReader(file)), 8, tmp_path / "judged.svg")
    picture = (tmp_path / "judged.svg").read_text()
    titles = ("generative perplexity, 8 steps", "entropy of samples", "reward (log-odds)")
    assert all(title in picture for title in titles)
