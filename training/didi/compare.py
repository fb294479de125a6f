"""Compares teachers at equal processor time: `python -m didi.compare --run NAME DIR TOKENIZER ... --out FILE`.

Measures what `didi.train` left in each folder on the validation split. Vocabularies cut the same text
into different numbers of tokens, so the figure is nats a character.
"""

import argparse
import csv
from pathlib import Path

import torch
from tokenizers import Tokenizer

from .card import held_out
from .corpus import SOURCES, load_stream
from .export import load_backbone
from .train import weighted

FIELDS = ["name", "parameters", "hidden", "blocks", "vocabulary", "context", "tokens", "cpu_seconds"]
FIELDS += ["nats_per_character", "standard_error", *(f"nats_per_character_{name[0]}" for name in SOURCES)]


def measure(name: str, run: Path, tokenizer_file: str, draws: int) -> dict:
    """One row: the averaged weights of the run's end over all windows of the validation split, the sources weighed as in training.

    Raises FileNotFoundError if the folder holds no run, ValueError if its log holds no validation.
    """
    print(name)
    tokenizer = Tokenizer.from_file(tokenizer_file)
    model = load_backbone(run / "checkpoint.pt")
    with (run / "log.csv").open() as file:
        *_, last = csv.DictReader(file)
    by_source = {}
    for source in SOURCES:
        by_source[source] = held_out(model, load_stream(source, "validation", tokenizer), tokenizer, draws)
    characters = {source: figures["nats_per_character"] for source, figures in by_source.items()}
    # A source's standard error a character: that a token, in proportion.
    variance = sum(
        (SOURCES[source] * figures["standard_error"] * characters[source] / figures["nats_per_token"]) ** 2
        for source, figures in by_source.items()
    )
    return {
        "name": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "hidden": model.config.hidden,
        "blocks": model.config.blocks,
        "vocabulary": model.config.vocab_size,
        "context": model.config.context,
        "tokens": last["tokens"],
        "cpu_seconds": last["cpu_seconds"],
        "nats_per_character": round(weighted(characters), 4),
        "standard_error": round(variance**0.5, 4),
        **{f"nats_per_character_{source[0]}": value for source, value in characters.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs=3, action="append", required=True, metavar=("NAME", "DIR", "TOKENIZER"))
    parser.add_argument("--draws", type=int, default=2, help="noise levels of each window (default %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, required=True, help="the table, as CSV")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [measure(name, Path(run), tokenizer, args.draws) for name, run, tokenizer in args.run]
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(f"{row['name']}: {row['nats_per_character']} nats a character (standard error {row['standard_error']})")


if __name__ == "__main__":
    main()
