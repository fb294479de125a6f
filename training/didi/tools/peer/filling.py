"""Fill gaps in held-out stories: `python -m didi.tools.peer.filling --server URL --peer FOLDER --judge
FOLDER`.

Each item is a piece of a simple story of the test split without some tokens in its middle, whole words. A
running server fills the gap in a few steps, seeing both sides. The autoregressive peer continues the left
side, which is all that it can see. The judge, another causal model, reads the whole piece. For each filling:
the judge's perplexity of the piece with a 95% interval, the mean difference of its nats a piece from the peer
at the same temperature with its standard error, the share of tokens and of gaps that are as in the story, and
the passes. Temperature 0 takes the most likely token.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ...causal import load_causal, sample_causal
from ...command import command_parser, generate
from ...corpus import SEPARATOR, Stream, load_stream
from ..judge import SIMPLE_STORIES
from ..measure import bootstrap, judge_nats

LENGTH = 128  # tokens of a piece
START = 64  # position of the gap
CHECKED = 64  # attempts to find a place in a story


def word_starts(tokenizer: Tokenizer) -> Tensor:
    """Return which ids [V] begin a word: those with a leading space or line break, and the end of text."""
    pieces = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    return torch.tensor([piece.startswith(("Ġ", "Ċ", "<|")) for piece in pieces])


def pieces(stream: Stream, starts_word: np.ndarray, gap: int, count: int, seed: int) -> np.ndarray:
    """Return pieces [N, LENGTH], one a story at most, N <= `count`.

    The piece, the gap and what follows the gap each start with a word. `starts_word` [V] says which tokens
    do.
    """
    rng = np.random.default_rng(seed)
    ends = np.append(stream.starts[1:], len(stream.ids)) - 1  # without the end of text
    rows = []
    for story in rng.permutation(len(ends)):
        first, last = stream.starts[story], ends[story] - LENGTH
        if last < first:
            continue
        for at in rng.integers(first, last + 1, CHECKED):
            if starts_word[stream.ids[[at, at + START, at + START + gap]]].all():
                rows.append(stream.ids[at : at + LENGTH])
                break
        if len(rows) == count:
            break
    return np.stack(rows)


def fill(server: str, canvas: Sequence[int], seed: int, steps: int, temperature: float) -> list[int]:
    """Return the tokens that the server puts into the gap of a canvas."""
    body = {"tokens": list(canvas), "seed": seed, "steps": steps, "temperature": temperature}
    body |= {"guidance": {"mode": "none"}, "early_stop": False}
    if temperature == 0:
        body["order"] = "confidence"
    return generate(server, body)["samples"][0]["tokens"]


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--server", default="http://127.0.0.1:8080", help="URL of the server")
    parser.add_argument("--peer", type=Path, required=True, help="folder of the autoregressive model")
    parser.add_argument("--judge", type=Path, required=True, help="folder of the causal model that judges")
    parser.add_argument("--items", type=int, default=512, help="number of pieces for each length of gap")
    parser.add_argument("--gaps", type=int, nargs="+", default=[4, 8, 16], help="tokens of a gap")
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8], help="of the served model")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 0.0], help="of both")
    parser.add_argument("--seed", type=int, default=1, help="of the pieces")
    args = parser.parse_args()
    peer, judge = load_causal(args.peer), load_causal(args.judge)
    tokenizer = Tokenizer.from_file(str(args.peer / "tokenizer.json"))
    end_id, mask_id = tokenizer.token_to_id(SEPARATOR), peer.config.mask_id
    starts_word = word_starts(tokenizer).numpy()
    streams = [load_stream(name, "test", tokenizer) for name in SIMPLE_STORIES]
    print("| gap | filled by | passes | perplexity (95%) | nats a piece over the peer (SE) | tokens | gaps |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for gap in args.gaps:
        halves = [pieces(stream, starts_word, gap, args.items // 2, args.seed) for stream in streams]
        x = torch.from_numpy(np.concatenate(halves))
        inside = slice(START, START + gap)
        left = torch.cat((torch.full((len(x), 1), end_id), x[:, :START]), dim=1)

        def judged(filled: Tensor) -> np.ndarray:
            whole = x.clone()
            whole[:, inside] = filled
            return judge_nats(judge, whole, end_id)

        def show(name: str, filled: Tensor, passes: int, base: np.ndarray | None) -> np.ndarray:
            nats, same = judged(filled), (filled == x[:, inside]).double()
            low, high = np.exp(bootstrap(nats))
            beside = ""
            if base is not None:
                change = LENGTH * (nats - base)
                beside = f"{change.mean():.2f} ({change.std(ddof=1) / np.sqrt(len(change)):.2f})"
            shares = f"{same.mean():.1%} | {same.prod(1).mean():.1%}"
            perplexity = f"{np.exp(nats.mean()):.2f} ({low:.2f} to {high:.2f})"
            print(f"| {gap} | {name} | {passes} | {perplexity} | {beside} | {shares} |", flush=True)
            return nats

        show("the story itself", x[:, inside], 0, None)
        for temperature in args.temperatures:
            torch.manual_seed(args.seed)
            own = sample_causal(peer, left, gap, temperature)
            base = show(f"peer, temperature {temperature:g}", own, gap, None)
            canvases = x.clone()
            canvases[:, inside] = mask_id
            for steps in args.steps:
                rows = [
                    fill(args.server, canvas, seed, steps, temperature)
                    for seed, canvas in enumerate(canvases.tolist())
                ]
                show(f"served, temperature {temperature:g}", torch.tensor(rows), steps, base)


if __name__ == "__main__":
    main()
