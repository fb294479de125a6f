"""Measures of samples: generative perplexity by a judge, entropy, and bootstrap intervals.

Perplexity alone can be lowered by repetition, so entropy is always reported with it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..causal import CausalLM, load_causal, next_token_nats
from ..corpus import SEPARATOR


@dataclass(frozen=True)
class Quality:
    """Measures of a set of samples, with 95% bootstrap intervals over samples.

    `generative_perplexity` is exp of the judge's mean nats a token. `entropy` is the mean over samples of the
    entropy (nats) of the sample's token frequencies.
    """

    samples: int
    length: int
    generative_perplexity: float
    generative_perplexity_interval: tuple[float, float]
    entropy: float
    entropy_interval: tuple[float, float]

    def to_dict(self) -> dict:
        def rounded(value):
            if isinstance(value, tuple):
                return [round(v, 4) for v in value]
            return round(value, 4) if isinstance(value, float) else value

        return {key: rounded(value) for key, value in asdict(self).items()}


@torch.no_grad()
def judge_nats(judge: CausalLM, x: Tensor, end_id: int, batch: int = 64) -> np.ndarray:
    """Return the judge's mean nats a token [N] for each row of x [N, L]; a row follows an end of text."""
    nats = [next_token_nats(judge, rows, end_id).mean(1) for rows in x.split(batch)]
    return torch.cat(nats).double().numpy()


def unigram_entropy(x: Tensor) -> np.ndarray:
    """Return the entropy [N] (nats) of the token frequencies inside each row of x [N, L]."""
    rows = []
    for row in x:
        share = row.unique(return_counts=True)[1] / x.shape[1]
        rows.append(float(-(share * share.log()).sum()))
    return np.array(rows)


def bootstrap(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean of values [N]."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def measure(x: Tensor, judge: CausalLM, end_id: int) -> Quality:
    """Return the quality of samples x [N, L]."""
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


def load_judge(folder: Path) -> Callable[[Tensor], Quality]:
    """Return `measure` by the causal model of an exported folder."""
    judge = load_causal(folder)
    end_id = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(SEPARATOR)
    return lambda x: measure(x, judge, end_id)
