import math

import numpy as np
import pytest
import torch
from conftest import TOKENIZER
from test_causal import causal_model
from tokenizers import Tokenizer

from didi import corpus
from didi.causal import load_causal, next_token_nats, sample_causal
from didi.tools import judge
from didi.tools.judge import WordCounter, rows_of
from didi.tools.measure import bootstrap, judge_nats, measure, unigram_entropy
from didi.tools.smollm2 import mean_nats


def test_entropy_is_that_of_the_token_frequencies():
    x = torch.tensor([[1, 1, 1, 1], [1, 2, 3, 4], [1, 1, 2, 2]])
    assert unigram_entropy(x) == pytest.approx([0, math.log(4), math.log(2)], abs=1e-6)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        low, high = bootstrap(rng.normal(3.0, 2.0, size=100), resamples=400)
        covered += low <= 3.0 <= high
    assert 0.91 < covered / 400 < 0.98


def test_the_outside_judge_scores_rows_of_any_length_as_alone():
    judge, generator = causal_model(), torch.Generator().manual_seed(0)
    rows = [torch.randint(0, 10, (length,), generator=generator) for length in (6, 2, 5, 1, 6)]
    with torch.no_grad():
        expected = [float(next_token_nats(judge, row[None], 9).mean()) for row in rows]
    found = mean_nats(judge, [row.tolist() for row in rows], 9, batch=2)
    assert found == pytest.approx(expected, abs=1e-5)


def test_words_are_shares_over_all_texts():
    counter = WordCounter(["The cat sat. A dog ran on."], ["The cat ran on"])
    words = counter.of(["The cat ran on the cat ran on", "Zog!", ""])
    assert words.known == 8 / 9
    assert (words.pairs, words.triples) == (6 / 7, 4 / 6)
    assert words.distinct == 5 / 9
    assert words.repeated == 1 / 5
    words = counter.of(["a b c d e", "b c d e f", "a a a a a"])
    assert words.unique == 4 / 6


def test_perplexity_is_the_exponential_of_the_judge_s_mean():
    judge = causal_model()
    x = torch.randint(0, 10, (130, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = next_token_nats(judge, x, 9).mean(1)
    assert judge_nats(judge, x, 9) == pytest.approx(expected.numpy(), abs=1e-5)
    quality = measure(x, judge, 9)
    assert quality.generative_perplexity == pytest.approx(float(expected.mean().exp()), rel=1e-5)
    low, high = quality.generative_perplexity_interval
    assert low < quality.generative_perplexity < high


def test_a_set_is_given_or_drawn_from_a_causal_model_or_held_out_text(folders, monkeypatch):
    tokenizer, small = Tokenizer.from_file(str(TOKENIZER)), "6-storybooks.txt.xz"
    stream = corpus.load_stream(small, "validation", tokenizer)
    monkeypatch.setattr(judge, "SIMPLE_STORIES", (small,))
    monkeypatch.setattr(corpus, "load_streams", lambda *args: {small: stream})

    def rows(given):
        return rows_of(given, tokenizer, 3, 8).tolist()

    assert rows([[1, 2]]) == [[1, 2]]
    assert rows({"name": "stories", "held_out": "stories"})[0] == stream.ids[:8].tolist()
    windows = rows({"held_out": "windows"})
    text = stream.ids.tolist()
    assert all(any(text[i : i + 8] == row for i in range(len(text))) for row in windows)
    start = torch.full((3, 1), tokenizer.token_to_id(corpus.SEPARATOR))
    peer = load_causal(folders / "peer")
    assert rows({"causal": str(folders / "peer"), "temperature": 0}) == sample_causal(peer, start, 8, 0).tolist()
    with pytest.raises(ValueError, match="held_out"):
        rows({"name": "nothing"})
