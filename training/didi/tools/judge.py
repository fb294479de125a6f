"""Judge sets of samples: `python -m didi.tools.judge SAMPLES.json --judge NAME [NAME ...] --out FILE`.

A judge is the folder of a causal model of this project, or `smollm2` (smollm2.py), which reads the text.

SAMPLES holds a list of sets, each a list of rows of token ids, all of one length. Row i of every set has the
same seed, so that differences between sets are paired. In place of a set of as many rows as the first,
`{"causal": FOLDER, "temperature": T}`, with `"top_p"` if it is not 1, is samples of a causal model,
`{"held_out": "windows"}` windows of the validation split, mixed as in training, and `{"held_out": "stories"}`
openings of its simple stories. For each set, write its entropy, its words (`Words`), and by each judge its
generative perplexity with a 95% bootstrap interval and, unless it is held-out text, the mean difference of
nats a token from the first set with its standard error.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..causal import load_causal, sample_causal
from ..command import command_parser
from ..corpus import SEPARATOR, SOURCES, documents, load_stream, split_windows
from .measure import bootstrap, judge_nats, unigram_entropy
from .smollm2 import SmolLM2

SIMPLE_STORIES = ("1-tinystories.txt.xz", "5-tinystories-more.txt.xz")


def texts(tokenizer: Tokenizer, rows: Tensor) -> list[str]:
    """Return the text of each row, with a blank line between stories."""
    decoded = tokenizer.decode_batch(rows.tolist(), skip_special_tokens=False)
    return [text.replace(SEPARATOR, "\n\n").strip() for text in decoded]


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())


def runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """Return every run of `length` words in a row."""
    return list(zip(*(words[i:] for i in range(length))))


@dataclass(frozen=True)
class Words:
    """What the words of a set are, each a share of 1; a text cut at the end may end in half a word.

    `known`: words that the training text has. `pairs`, `triples`: words in a row that held-out simple stories
    have. `distinct`: distinct words of a text. `repeated`: four words in a row that the text had before.
    `unique`: four words in a row that no other text of the set has.
    """

    known: float
    pairs: float
    triples: float
    distinct: float
    repeated: float
    unique: float


class WordCounter:
    """Measures `Words` against training texts and held-out texts."""

    def __init__(self, training: Iterable[str], held_out: Iterable[str]):
        self.known = {word for text in training for word in words_of(text)}
        lists = [words_of(text) for text in held_out]
        self.seen = {length: {run for words in lists for run in runs(words, length)} for length in (2, 3)}

    def of(self, texts: Sequence[str]) -> Words:
        lists = [words_of(text) for text in texts]
        owners = Counter(run for words in lists for run in set(runs(words, 4)))

        def share(hits: Callable[[list[str]], tuple[int, int]]) -> float:
            counts = np.array([hits(words) for words in lists])
            return float(counts[:, 0].sum() / max(1, counts[:, 1].sum()))

        def in_held_out(length: int) -> float:
            def hits(words: list[str]) -> tuple[int, int]:
                all_runs = runs(words, length)
                return sum(run in self.seen[length] for run in all_runs), len(all_runs)

            return share(hits)

        def repeats(words: list[str]) -> tuple[int, int]:
            fours = runs(words, 4)
            return len(fours) - len(set(fours)), len(fours)

        def own(words: list[str]) -> tuple[int, int]:
            fours = runs(words, 4)
            return sum(owners[run] == 1 for run in fours), len(fours)

        return Words(
            known=share(lambda words: (sum(word in self.known for word in words), len(words))),
            pairs=in_held_out(2),
            triples=in_held_out(3),
            distinct=share(lambda words: (len(set(words)), len(words))),
            repeated=share(repeats),
            unique=share(own),
        )


def openings(tokenizer: Tokenizer, count: int, length: int) -> Tensor:
    """Return the first `length` tokens [N, L] of simple stories of the validation split, N <= `count`.

    Stories that are shorter are left out.
    """
    rows = []
    for name in SIMPLE_STORIES:
        stream = load_stream(name, "validation", tokenizer)
        ends = np.append(stream.starts[1:], len(stream.ids))
        spans = zip(stream.starts, ends)
        rows += [stream.ids[start : start + length] for start, end in spans if end - start > length]
    return torch.from_numpy(np.stack(rows[:count]))


def rows_of(given: list | dict, tokenizer: Tokenizer, count: int, length: int) -> Tensor:
    """Return the rows [N, L] of a set of SAMPLES, N <= `count` unless they are given."""
    match given:
        case list():
            return torch.tensor(given)
        case {"held_out": "stories"}:
            return openings(tokenizer, count, length)
        case {"held_out": "windows"}:
            return split_windows("validation", tokenizer, count, length, seed=1)
        case {"causal": folder, "temperature": temperature}:
            start = torch.full((count, 1), tokenizer.token_to_id(SEPARATOR))
            torch.manual_seed(0)
            return sample_causal(load_causal(Path(folder)), start, length, temperature, given.get("top_p", 1.0))
    raise ValueError(f"a setting needs request, causal and temperature, or held_out: {given}")


def judge_of(name: str, tokenizer: Tokenizer) -> Callable[[Tensor], np.ndarray]:
    """Return a function from rows [N, L] to the judge's mean nats a token [N]."""
    if name == "smollm2":
        outside = SmolLM2()
        return lambda rows: outside.nats(texts(tokenizer, rows))
    causal = load_causal(Path(name))
    end_id = Tokenizer.from_file(str(Path(name) / "tokenizer.json")).token_to_id(SEPARATOR)
    return lambda rows: judge_nats(causal, rows, end_id)


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("samples", type=Path, help="JSON: sets of rows of token ids")
    parser.add_argument("--judge", nargs="+", required=True, help="folders of causal models, or smollm2")
    parser.add_argument("--tokenizer", type=Path, required=True, help="of the samples: tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    given = json.loads(args.samples.read_text())
    shape = (len(given[0]), len(given[0][0]))
    sets = [rows_of(rows, tokenizer, *shape) for rows in given]
    counter = WordCounter(
        (text for name in SOURCES for text in documents(name, "train")),
        (text for name in SIMPLE_STORIES for text in documents(name, "test")),
    )
    judged = [
        {
            "entropy": float(unigram_entropy(rows).mean()),
            "words": asdict(counter.of(texts(tokenizer, rows))),
            "judges": [],
        }
        for rows in sets
    ]
    for name in args.judge:
        judge = judge_of(name, tokenizer)
        nats = [judge(rows) for rows in sets]
        for rows, own, out in zip(given, nats, judged):
            by_judge = {
                "perplexity": float(np.exp(own.mean())),
                "interval": [float(x) for x in np.exp(bootstrap(own))],
            }
            if len(own) == len(nats[0]) and "held_out" not in rows:
                difference = own - nats[0]
                error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
                by_judge["difference"] = [float(difference.mean()), error]
            out["judges"].append(by_judge)
    args.out.write_text(json.dumps(judged) + "\n")


if __name__ == "__main__":
    main()
