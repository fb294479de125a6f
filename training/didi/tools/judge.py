"""Judge sets of samples: `python -m didi.tools.judge SAMPLES.json --judge FOLDER --out FILE`.

SAMPLES holds a list of sets, each a list of rows of token ids, all of one length. Row i of every set has the
same seed, so that differences between sets are paired. Writes for each set its generative perplexity with a
95% bootstrap interval, its entropy, and the mean difference of nats a token from the first set with its
standard error.
"""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from ..causal import load_causal
from ..command import command_parser
from ..corpus import SEPARATOR
from .measure import bootstrap, judge_nats, unigram_entropy


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("samples", type=Path, help="JSON: sets of rows of token ids")
    parser.add_argument("--judge", type=Path, required=True, help="folder of the causal model")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    judge = load_causal(args.judge)
    end_id = Tokenizer.from_file(str(args.judge / "tokenizer.json")).token_to_id(SEPARATOR)
    sets = [torch.tensor(rows) for rows in json.loads(args.samples.read_text())]
    nats = [judge_nats(judge, rows, end_id) for rows in sets]
    judged = []
    for rows, own in zip(sets, nats):
        difference = own - nats[0]
        error = float(difference.std(ddof=1) / np.sqrt(len(difference)))
        judged.append(
            {
                "perplexity": float(np.exp(own.mean())),
                "interval": [float(x) for x in np.exp(bootstrap(own))],
                "entropy": float(unigram_entropy(rows).mean()),
                "difference": [float(difference.mean()), error],
            }
        )
    args.out.write_text(json.dumps(judged) + "\n")


if __name__ == "__main__":
    main()
