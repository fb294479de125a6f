"""Fill gaps in held-out proteins: `python -m didi.tools.proteins.filling --server URL --peer FILE`.

Each item is a whole sequence of the test split without some residues in its middle. A running server fills
the gap seeing both sides. The autoregressive peer continues the left side, which is all that it can see. The
unigram takes residues by their frequency in the training split. For each: the share of residues that are as
in the sequence, with a 95% interval over sequences. Temperature 0 takes the most likely residue.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ...causal import load_causal, sample_causal
from ...command import command_parser
from ...corpus import SEPARATOR, documents
from ...tokenizer import MASK, RESIDUES
from ..measure import bootstrap
from ..peer.filling import fill
from .evaluate import CLIENTS, SOURCE, frequencies


def unigram(x: Tensor, ids: Tensor, share: np.ndarray, temperature: float) -> np.ndarray:
    """Return the expected share [N] of residues x [N, L] that the unigram finds; `ids` [20] have `share`."""
    p = share if temperature == 1 else (share == share.max()).astype(float)
    by_id = np.zeros(int(ids.max()) + 1)
    by_id[ids.numpy()] = p
    return by_id[x.numpy()].mean(1)


def main() -> None:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--server", default="http://127.0.0.1:8080", help="URL of the server")
    add("--tokenizer", type=Path, required=True, help="tokenizer.json of its model")
    add("--peer", type=Path, required=True, help="autoregressive peer: a folder or checkpoint.pt")
    add("--items", type=int, default=512, help="number of sequences")
    add("--gaps", type=int, nargs="+", default=[8, 16], help="residues of a gap")
    add("--steps", type=int, nargs="+", default=[1, 8], help="of the served model")
    add("--temperatures", type=float, nargs="+", default=[1.0, 0.0], help="of all three")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    tokenizer, peer = Tokenizer.from_file(str(args.tokenizer)), load_causal(args.peer)
    end, mask = tokenizer.token_to_id(SEPARATOR), tokenizer.token_to_id(MASK)
    sequences = documents(SOURCE, "test")[: args.items]
    rows = [[*tokenizer.encode(sequence).ids, end] for sequence in sequences]
    ids = torch.tensor([tokenizer.token_to_id(residue) for residue in RESIDUES])
    share = frequencies(documents(SOURCE, "train"))
    print("| gap | temperature | filled by | residues as in the sequence (95%) |")
    print("| --- | --- | --- | --- |")
    for gap in args.gaps:
        starts = [(len(row) - 1 - gap) // 2 for row in rows]
        x = torch.tensor([row[at : at + gap] for row, at in zip(rows, starts)])
        for temperature in args.temperatures:

            def show(name: str, hits: np.ndarray) -> None:
                low, high = bootstrap(hits)
                found = f"{hits.mean():.1%} ({low:.1%} to {high:.1%})"
                print(f"| {gap} | {temperature:g} | {name} | {found} |", flush=True)  # noqa: B023

            show("unigram", unigram(x, ids, share, temperature))
            left = [torch.tensor([[end, *row[:at]]]) for row, at in zip(rows, starts)]
            own = torch.cat([sample_causal(peer, start, gap, temperature) for start in left])
            show("peer", (own == x).double().mean(1).numpy())
            for steps in args.steps:

                def one(i: int) -> list[int]:
                    canvas = rows[i][: starts[i]] + [mask] * gap + rows[i][starts[i] + gap :]  # noqa: B023
                    return fill(args.server, canvas, i, steps, temperature)  # noqa: B023

                with ThreadPoolExecutor(CLIENTS) as pool:
                    filled = torch.tensor(list(pool.map(one, range(len(rows)))))
                show(f"served, {steps} step{'s' * (steps > 1)}", (filled == x).double().mean(1).numpy())


if __name__ == "__main__":
    main()
