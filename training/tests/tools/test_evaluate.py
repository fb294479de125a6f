"""The quality table, end to end on models too small to be any good."""

import json
import re
import sys

import pytest

from conftest import TOKENIZER
from didi.tools import evaluate as evaluation
from didi.tools.evaluate import STYLES, quality_markdown


def test_the_table_is_made_once_and_goes_on_where_it_stopped(folders, tmp_path, monkeypatch, capsys):
    def run(*flags: str) -> list[dict]:
        argv = ["--samples", "6", "--length", "16", "--threads", "1", "--out", str(tmp_path), *flags]
        for name in ("teacher", "student", "judge", "peer"):
            argv += [f"--{name}", str(folders / name)]
        monkeypatch.setattr(sys, "argv", ["evaluate", *argv])
        evaluation.main()
        return json.loads((tmp_path / "quality.json").read_text())["cells"]

    cells = run("--steps", "1", "2")
    samplers = [(cell["sampler"], cell["steps"]) for cell in cells]
    assert samplers[:3] == [("real text", None), ("shuffled words", None), ("autoregressive peer", 16)]
    assert samplers[3:] == [(sampler, steps) for sampler in STYLES for steps in (1, 2)]
    for cell in cells:
        low, high = cell["generative_perplexity_interval"]
        assert low <= cell["generative_perplexity"] <= high and cell["samples"] == 6
    assert "<svg" in (tmp_path / "quality.svg").read_text()
    table = (tmp_path / "quality.md").read_text()
    assert table.count("\n| ") == 3 and "- real text: " in table
    stored = json.loads((folders / "student" / "model.json").read_text())["quality"]
    expected = [(sampler, steps) for sampler in ("plain", "rgas") for steps in (1, 2)]
    assert [(row["sampler"], row["steps"]) for row in stored] == expected
    assert [row["entropy"] for row in stored] == [cell["entropy"] for cell in cells[-4:]]
    # A judge that knows nothing of language: words in order are no better to it, and their entropy is the
    # same.
    assert cells[0]["entropy"] == cells[1]["entropy"]

    capsys.readouterr()
    assert run("--steps", "1", "2", "4")[: len(cells)] == cells
    assert "teacher at 4 steps" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="other settings"):
        run("--steps", "1", "--seed", "9")


def test_the_card_s_table_is_that_of_the_result_file():
    models = TOKENIZER.parents[1]
    card = models / "stories-didi" / "card"
    content = json.loads((card / "quality.json").read_text())
    table = quality_markdown(content["cells"])
    assert (card / "quality.md").read_text() == table
    # The card's columns are padded to one width.
    squeeze = lambda text: re.sub(r"-{3,}", "---", re.sub(r" +", " ", text))  # noqa: E731
    assert squeeze(table) in squeeze((models / "README.md").read_text())
