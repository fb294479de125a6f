"""Measure a served model of proteins: `python -m didi.tools.proteins.evaluate --model FOLDER --judge FILE
--keep FILE`.

A running server writes sequences in a canvas of 256 tokens at each number of steps, plain and, with a
discriminator, guided. The first residue is given, methionine, as in nearly all proteins, because half of the
training windows begin in the middle of one. Beside them are real sequences of the test split, each of a
cluster that training never saw, the same with their residues shuffled, and the autoregressive peer's.

Of each set: perplexity by the judge, a causal model, with a 95% interval; entropy of the residues of a
sequence; the share that a Pfam family matches; the share that aligns with a training sequence, and the median
identity of those; the divergence of the residues' frequencies from the real ones; and the lengths. They go to
`card/figures.json` in the model's folder, of which `npm run docs` makes a table, and the perplexities of plain
sampling into its `model.json`. Sets of sequences in the file `--keep` are not written again.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from ...causal import load_causal, sample_causal
from ...command import command_parser, generate
from ...corpus import SEPARATOR, documents
from ...tokenizer import RESIDUES
from ..smollm2 import mean_nats
from .homology import nearest, with_family

SOURCE = "7-proteins.fasta.xz"
LENGTH = 256  # tokens of a canvas
FIRST = "M"  # residue of a sequence
CLIENTS = 16  # requests at a time
MODES = {"plain": "none", "rgas": "rgas"}  # samplers, as `model.json` names them, and as a request does


def written(server: str, mode: str, steps: int, count: int) -> list[str]:
    """Return what a server writes for seeds 1 to `count`, each cut before its first end of text."""

    def one(seed: int) -> str:
        body = {"prompt": FIRST, "length": LENGTH - 1, "steps": steps, "seed": seed}
        return FIRST + generate(server, body | {"guidance": {"mode": mode}})["samples"][0]["text"]

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(one, range(1, count + 1)))


def spelled(tokenizer: Tokenizer, tokens: torch.Tensor) -> list[str]:
    """Return the sequences of rows [N, L] of ids, each cut before its first end of text."""
    decoded = tokenizer.decode_batch(tokens.tolist(), skip_special_tokens=False)
    return [text.partition(SEPARATOR)[0] for text in decoded]


def shuffled(sequences: Sequence[str], seed: int) -> list[str]:
    """Return the sequences with the residues of each in random order."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.permutation(list(sequence))) for sequence in sequences]


def perplexity(nats: np.ndarray, lengths: np.ndarray, resamples: int = 2000) -> tuple[float, list[float]]:
    """Return the perplexity of sequences and its 95% bootstrap interval over sequences.

    `nats` [N] are means a token, `lengths` [N] the tokens of each.
    """
    rows = np.random.default_rng(0).integers(len(nats), size=(resamples, len(nats)))
    total = nats * lengths
    means = total[rows].sum(1) / lengths[rows].sum(1)
    mean = float(np.exp(total.sum() / lengths.sum()))
    return mean, [float(value) for value in np.exp(np.quantile(means, [0.025, 0.975]))]


def frequencies(sequences: Sequence[str]) -> np.ndarray:
    """Return the share [20] of each residue, with one more of each so that none is zero."""
    counts = np.array([sum(sequence.count(residue) for sequence in sequences) for residue in RESIDUES])
    return (counts + 1) / (counts + 1).sum()


def residue_entropy(sequence: str) -> float:
    """Return the entropy of the residues of a sequence, in nats; 0 for an empty one."""
    share = np.array([sequence.count(residue) for residue in set(sequence)]) / max(1, len(sequence))
    return float(-(share * np.log(share)).sum())


def composition_divergence(sequences: Sequence[str], real: np.ndarray) -> float:
    """Return the KL divergence of the residues' frequencies from `real` [20], in nats."""
    own = frequencies(sequences)
    return float((own * np.log(own / real)).sum())


class Table:
    """The sets of sequences so far, kept in a file."""

    def __init__(self, path: Path):
        self.path = path
        self.sets: list[dict] = json.loads(path.read_text())["sets"] if path.exists() else []

    def add(self, sampler: str, steps: int | None, write: Callable[[], list[str]]) -> None:
        """Write a set of sequences, unless it is there."""
        if any(one["sampler"] == sampler and one["steps"] == steps for one in self.sets):
            return
        self.sets.append({"sampler": sampler, "steps": steps, "sequences": write()})
        self.path.write_text(json.dumps({"sets": self.sets}) + "\n")
        print(f"{sampler}, {steps} steps: {len(self.sets[-1]['sequences'])} sequences", flush=True)


def measure(table: Table, judge: Callable[[Sequence[str]], np.ndarray], threads: int) -> list[dict]:
    """Return the figures of each set. `judge` returns the mean nats a token [N] of sequences."""
    all_sequences = [one["sequences"] for one in table.sets]
    training = documents(SOURCE, "train")
    real = frequencies(training)
    families = with_family(all_sequences, threads)
    near = nearest(all_sequences, training, threads)
    figures = []
    for one, known, alike in zip(table.sets, families, near):
        sequences = one["sequences"]
        lengths = np.array([len(sequence) for sequence in sequences])
        value, interval = perplexity(judge(sequences), lengths + 1)
        identity = [share for share in alike if share is not None]
        figures.append(
            {
                "sampler": one["sampler"],
                "steps": one["steps"],
                "samples": len(sequences),
                "generative_perplexity": round(value, 4),
                "generative_perplexity_interval": [round(x, 4) for x in interval],
                "entropy": round(float(np.mean([residue_entropy(s) for s in sequences])), 4),
                "with_family": round(float(np.mean(known)), 4),
                "near_training": round(len(identity) / len(sequences), 4),
                "identity": round(float(np.median(identity)), 3) if identity else None,
                "composition": round(composition_divergence(sequences, real), 4),
                "length": round(float(lengths.mean()), 1),
                "length_deviation": round(float(lengths.std()), 1),
                "unended": round(float((lengths >= LENGTH).mean()), 4),
            }
        )
    return figures


def summary(cell: dict) -> str:
    """Return the figures of a set as a line."""
    low, high = cell["generative_perplexity_interval"]
    steps = "" if cell["steps"] is None else f", {cell['steps']} steps"
    perplexity = f"perplexity {cell['generative_perplexity']:.2f} ({low:.2f} to {high:.2f})"
    return f"{cell['sampler']}{steps}: {perplexity}, {cell['with_family']:.1%} with a family"


def main() -> None:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("--server", default="http://127.0.0.1:8080", help="URL of the server")
    add("--model", type=Path, required=True, help="its model folder, where the table goes")
    add("--judge", type=Path, required=True, help="causal model: a folder or checkpoint.pt")
    add("--peer", type=Path, help="autoregressive peer: a folder or checkpoint.pt")
    add("--steps", type=int, nargs="+", default=[8, 16, 32, 64, 128], help="step counts")
    add("--guided-steps", type=int, nargs="+", default=[8, 16, 32], help="those with guidance")
    add("--samples", type=int, default=256, help="sequences of a set")
    add("--keep", type=Path, required=True, help="JSON file of the sequences")
    add("--threads", type=int, default=1, help="threads of the searches and of PyTorch")
    evaluate(parser.parse_args())


def evaluate(args: argparse.Namespace) -> None:
    """Write the sets of sequences, measure them and write the figures; see the module.

    Raise SystemExit if the searches are not installed, HTTPError if the server refuses a request.
    """
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    end = tokenizer.token_to_id(SEPARATOR)
    table = Table(args.keep)
    real = documents(SOURCE, "test")[: args.samples]
    table.add("real", None, lambda: real)
    table.add("shuffled", None, lambda: shuffled(real, 1))
    if args.peer:
        peer, first = load_causal(args.peer), [end, *tokenizer.encode(FIRST).ids]

        def by_peer() -> list[str]:
            drawn = sample_causal(peer, torch.tensor([first] * args.samples), LENGTH - 1)
            return [FIRST + rest for rest in spelled(tokenizer, drawn)]

        table.add("autoregressive peer", None, by_peer)
    manifest = json.loads((args.model / "model.json").read_text())
    counts = {"plain": args.steps, "rgas": args.guided_steps if "guidance" in manifest else []}
    for sampler, mode in MODES.items():
        for steps in counts[sampler]:
            table.add(sampler, steps, lambda: written(args.server, mode, steps, args.samples))  # noqa: B023
    judge = load_causal(args.judge)

    def nats(sequences: Sequence[str]) -> np.ndarray:
        rows = [[*tokenizer.encode(sequence).ids, end][:LENGTH] for sequence in sequences]
        return mean_nats(judge, rows, end)

    figures = measure(table, nats, args.threads)
    card = args.model / "card"
    card.mkdir(exist_ok=True)
    (card / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    measures = ("sampler", "steps", "generative_perplexity", "entropy")
    # `steps: "auto"` goes by the least perplexity, and guidance lowers it by bending the composition.
    plain = [cell for cell in figures if cell["sampler"] == "plain"]
    manifest["quality"] = [{name: cell[name] for name in measures} for cell in plain]
    (args.model / "model.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print("\n".join(summary(cell) for cell in figures))


if __name__ == "__main__":
    main()
