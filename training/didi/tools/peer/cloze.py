"""Choose a missing noun: `python -m didi.tools.peer.cloze --server URL --peer FOLDER`.

Each item is a piece of a held-out story without one noun; its options are that noun and three others as
frequent. A running server answers with a choice (docs/understand/sampler.md), one request an item. Beside it
the autoregressive peer: the option with the largest likelihood given the text on its left, and that with the
largest likelihood of the whole piece, which needs a pass for each option.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from ...causal import CausalLM, load_causal, next_token_nats
from ...command import command_parser, generate
from ...corpus import SEPARATOR, documents

NOUN = re.compile(r"\b(?:the|his|her|big|old) ([a-z]{3,})(?=[.,!?]| (?:and|was|in|on|to|with)\b)")
STORIES = "1-tinystories.txt.xz"
LEFT, RIGHT = 240, 120  # characters of a piece beside the noun
NOUNS = 300  # most frequent nouns that options are taken from


@dataclass(frozen=True)
class Item:
    left: str
    right: str
    options: tuple[str, ...]
    answer: int


def make_items(texts: Sequence[str], count: int, seed: int) -> list[Item]:
    """Return items, one a text at most. The other options have a like rank of frequency in these texts."""
    rng = np.random.default_rng(seed)
    found = Counter(match[1] for text in texts for match in NOUN.finditer(text))
    nouns = [noun for noun, _ in found.most_common(NOUNS)]
    rank = {noun: i for i, noun in enumerate(nouns)}
    items: list[Item] = []
    for i in rng.permutation(len(texts)):
        places = [match for match in NOUN.finditer(texts[i], LEFT) if match[1] in rank]
        if not places:
            continue
        place = places[rng.integers(len(places))]
        noun, at = place[1], rank[place[1]]
        near = [other for other in nouns[max(0, at - 20) : at + 21] if other != noun]
        options = rng.permutation([noun, *rng.choice(near, 3, replace=False)]).tolist()
        left, right = texts[i][place.start(1) - LEFT : place.start(1)], texts[i][place.end() :][:RIGHT]
        # Whole words at both ends.
        left, right = left.partition(" ")[2].rstrip(), right.rpartition(" ")[0]
        items.append(Item(left, right, tuple(options), options.index(noun)))
        if len(items) == count:
            break
    return items


def ask(server: str, item: Item) -> int:
    """Return the option that the server chooses."""
    template = f"{item.left} {{{{choice:{'|'.join(item.options)}}}}}{item.right}"
    return generate(server, {"template": template})["choices"][0]["chosen"]


@torch.no_grad()
def by_peer(peer: CausalLM, tokenizer: Tokenizer, item: Item) -> tuple[int, int]:
    """Return the option that is likeliest after the left side, and the one in the likeliest piece."""
    end = tokenizer.token_to_id(SEPARATOR)

    def nats(text: str) -> float:
        return float(next_token_nats(peer, torch.tensor([tokenizer.encode(text).ids]), end).sum())

    after_left = [nats(f"{item.left} {option}") for option in item.options]
    whole = [nats(f"{item.left} {option}{item.right}") for option in item.options]
    return int(np.argmin(after_left)), int(np.argmin(whole))


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--server", default="http://127.0.0.1:8080", help="URL of the server")
    parser.add_argument("--peer", type=Path, required=True, help="folder of the autoregressive model")
    parser.add_argument("--items", type=int, default=200, help="number of items")
    parser.add_argument("--seed", type=int, default=1, help="of the items")
    args = parser.parse_args()
    peer = load_causal(args.peer)
    tokenizer = Tokenizer.from_file(str(args.peer / "tokenizer.json"))
    items = make_items(documents(STORIES, "test"), args.items, args.seed)
    right = np.zeros((3, len(items)))
    for i, item in enumerate(items):
        chosen = (ask(args.server, item), *by_peer(peer, tokenizer, item))
        right[:, i] = [option == item.answer for option in chosen]
        if (i + 1) % 20 == 0:
            print(f"{i + 1} of {len(items)}", flush=True)
    names = ("served model, choice", "peer, left side", "peer, whole piece")
    for name, own in zip(names, right):
        error = own.std(ddof=1) / np.sqrt(len(own))
        print(f"{name}: {own.mean():.1%} (standard error {error:.1%})")


if __name__ == "__main__":
    main()
