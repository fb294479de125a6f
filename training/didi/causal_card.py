"""What a causal model's card shows: `python -m didi.causal_card --run DIR --model FOLDER`.

Perplexity on the test split, by source, with the training log, written into the exported folder as `results.json`
and `log.csv`.
"""

import argparse
import csv
import json
import math
from pathlib import Path

from tokenizers import Tokenizer

from .card import LABELS
from .causal_export import load_causal
from .corpus import SEPARATOR, SOURCES, evaluation_windows, load_stream
from .objectives import Causal
from .train import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--model", type=Path, required=True, help="exported folder")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    model = load_causal(args.model)
    log = (args.run / "log.csv").read_text()
    *_, last = csv.DictReader(log.splitlines())
    results = {"training": {k: float(last[k]) for k in ("step", "tokens", "cpu_seconds")}, "held_out": {}}
    for name in SOURCES:
        stream = load_stream(name, "test", tokenizer)
        (nats,) = evaluate(Causal(tokenizer.token_to_id(SEPARATOR)), model, {name: stream}, None).values()
        results["held_out"][LABELS[name]] = {
            "windows": len(evaluation_windows(stream, model.config.context)),
            "nats_per_token": round(nats, 4),
            "perplexity": round(math.exp(nats), 3),
        }
        print(LABELS[name], results["held_out"][LABELS[name]])
    results["parameters"] = sum(p.numel() for p in model.parameters())
    (args.model / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (args.model / "log.csv").write_text(log)


if __name__ == "__main__":
    main()
