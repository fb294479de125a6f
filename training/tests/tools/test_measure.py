import math

import numpy as np
import pytest
import torch
from test_causal import causal_model

from didi.causal import next_token_nats
from didi.tools.judge import WordCounter
from didi.tools.measure import bootstrap, judge_nats, measure, shuffle_words, unigram_entropy
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


def test_shuffled_words_stay_whole():
    starts_word = torch.tensor([True, False, True, False])
    x = torch.tensor([[0, 1, 2, 3, 3, 0, 1, 1], [1, 0, 2, 2, 0, 1, 2, 3]])
    shuffled = shuffle_words(x, starts_word, seed=1)
    assert not torch.equal(shuffled, x)

    def words(row: list[int]) -> list[tuple[int, ...]]:
        found: list[list[int]] = [[row[0]]]
        for token in row[1:]:
            if starts_word[token]:
                found.append([])
            found[-1].append(token)
        return sorted(map(tuple, found))

    assert words(shuffled[0].tolist()) == words(x[0].tolist())
    assert sorted(shuffled[1].tolist()) == sorted(x[1].tolist())
