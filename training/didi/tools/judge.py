"""Judge sets of samples: `python -m didi.tools.judge SAMPLES.json --judge FOLDER --out FILE`.

The judge is a causal model of this project, or `smollm2` (smollm2.py), which reads the text.

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
from torch import Tensor

from ..causal import load_causal
from ..command import command_parser
from ..corpus import SEPARATOR
from .measure import bootstrap, judge_nats, unigram_entropy
from .smollm2 import SmolLM2


def texts(tokenizer: Tokenizer, rows: Tensor) -> list[str]:
    """Return the text of each row, with a blank line between stories."""
    decoded = tokenizer.decode_batch(rows.tolist(), skip_special_tokens=False)
    return [text.replace(SEPARATOR, "\n\n").strip() for text in decoded]


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("samples", type=Path, help="JSON: sets of rows of token ids")
    parser.add_argument("--judge", required=True, help="folder of the causal model, or smollm2")
    parser.add_argument("--tokenizer", type=Path, help="of the samples, for smollm2: tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    if args.judge == "smollm2" and args.tokenizer is None:
        parser.error("--judge smollm2 needs --tokenizer")
    sets = [torch.tensor(rows) for rows in json.loads(args.samples.read_text())]
    if args.judge == "smollm2":
        tokenizer, outside = Tokenizer.from_file(str(args.tokenizer)), SmolLM2()
        nats = [outside.nats(texts(tokenizer, rows)) for rows in sets]
    else:
        judge, tokenizer = load_causal(Path(args.judge)), Path(args.judge) / "tokenizer.json"
        end_id = Tokenizer.from_file(str(tokenizer)).token_to_id(SEPARATOR)
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
