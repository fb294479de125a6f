"""How good samples are: generative perplexity by a judge, entropy, and bootstrap intervals.

Perplexity alone is gamed by repetition, so entropy stands beside it.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from .causal import CausalLM, next_token_nats


@dataclass(frozen=True)
class Quality:
    """Of a set of samples, with 95% bootstrap intervals over samples.

    `generative_perplexity`: exp of the judge's mean nats a token. `entropy`: mean over samples of the
    entropy (nats) of the sample's own token frequencies.
    """

    samples: int
    length: int
    generative_perplexity: float
    generative_perplexity_interval: tuple[float, float]
    entropy: float
    entropy_interval: tuple[float, float]

    def to_dict(self) -> dict:
        rounded = lambda v: [round(x, 4) for x in v] if isinstance(v, tuple) else round(v, 4) if isinstance(v, float) else v  # noqa: E731
        return {key: rounded(value) for key, value in asdict(self).items()}


@torch.no_grad()
def judge_nats(judge: CausalLM, x: Tensor, end_id: int, batch: int = 64) -> np.ndarray:
    """The judge's mean nats a token for each row of x [N, L]; a row follows an end of text."""
    return torch.cat([next_token_nats(judge, rows, end_id).mean(1) for rows in x.split(batch)]).double().numpy()


def unigram_entropy(x: Tensor) -> np.ndarray:
    """Entropy (nats) of the token frequencies inside each row of x [N, L]."""
    rows = []
    for row in x:
        share = row.unique(return_counts=True)[1] / x.shape[1]
        rows.append(float(-(share * share.log()).sum()))
    return np.array(rows)


def bootstrap(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of the mean of values [N]."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def measure(x: Tensor, judge: CausalLM, end_id: int) -> Quality:
    """Quality of samples x [N, L]."""
    nats, entropy = judge_nats(judge, x, end_id), unigram_entropy(x)
    low, high = np.exp(bootstrap(nats))
    return Quality(
        samples=len(x),
        length=x.shape[1],
        generative_perplexity=float(np.exp(nats.mean())),
        generative_perplexity_interval=(float(low), float(high)),
        entropy=float(entropy.mean()),
        entropy_interval=bootstrap(entropy),
    )


def shuffle_words(x: Tensor, starts_word: Tensor, seed: int = 0) -> Tensor:
    """Each row of x [N, L] with its words in random order: the same tokens, no grammar.

    `starts_word` [V] says which tokens begin a word.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for row in x:
        first = starts_word[row].clone()
        first[0] = True
        words = row.tensor_split(first.nonzero()[1:, 0])
        rows.append(torch.cat([words[i] for i in rng.permutation(len(words))]))
    return torch.stack(rows)
