"""Measure what an early stop saves: `python -m didi.tools.endings --server URL`.

Each prompt is a simple story of the test split without its last sentence, so most texts end early. A running
server completes it with and without `early_stop`, with the same seed. For one block and for blocks: how many
texts are equal, how many end within the canvas, and the share of the student's passes that is saved over all
prompts and over those whose texts end.
"""

import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ..command import command_parser, generate
from ..corpus import documents
from .judge import SIMPLE_STORIES

CONTEXT = 256  # tokens of prompt and completion
SENTENCE = re.compile(r"(?<=[.!?\"])\s+")


def prompts(tokenizer: Tokenizer, count: int, most: int, seed: int) -> list[str]:
    """Return stories without their last sentence, cut from the left to at most `most` tokens."""
    texts = [text for name in SIMPLE_STORIES for text in documents(name, "test")]
    rng, found = np.random.default_rng(seed), []
    for i in rng.permutation(len(texts)):
        sentences = SENTENCE.split(texts[i])
        if len(sentences) > 3:
            before = texts[i][: texts[i].rindex(sentences[-1])].rstrip()
            prompt = tokenizer.decode(tokenizer.encode(before).ids[-most:]).lstrip()
            # A prompt that was cut inside a word may have more tokens.
            if len(tokenizer.encode(prompt).ids) <= most:
                found.append(prompt)
        if len(found) == count:
            break
    return found


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument("--server", default="http://127.0.0.1:8080", help="URL of the server")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of its model")
    parser.add_argument("--prompts", type=int, default=200, help="number of prompts")
    parser.add_argument("--length", type=int, default=128, help="tokens of a completion")
    parser.add_argument("--steps", type=int, default=32, help="step budget")
    parser.add_argument("--blocks", type=int, nargs="+", default=[128, 32, 16], help="lengths of a block")
    parser.add_argument("--seed", type=int, default=1, help="of the prompts")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    texts = prompts(tokenizer, args.prompts, CONTEXT - args.length, args.seed)
    print("| tokens of a block | equal texts | texts that end | passes saved | of texts that end |")
    print("| --- | --- | --- | --- | --- |")
    for block in args.blocks:
        equal, ends, passes = [], [], []
        for seed, prompt in enumerate(texts):
            body = {"prompt": prompt, "length": args.length, "steps": args.steps, "seed": seed}
            body |= {"order": "random", "block_length": block, "guidance": {"mode": "none"}}
            whole, early = (generate(args.server, body | {"early_stop": early}) for early in (False, True))
            equal.append(whole["samples"][0]["text"] == early["samples"][0]["text"])
            ends.append(early["samples"][0]["finish_reason"] == "stop")
            passes.append([answer["usage"]["student_passes"] for answer in (whole, early)])
        of_all, ended = np.array(passes), np.array(ends)
        saved = [1 - rows[:, 1].sum() / rows[:, 0].sum() for rows in (of_all, of_all[ended])]
        cells = [f"{sum(equal)} of {len(equal)}", f"{ended.mean():.0%}", *(f"{share:.0%}" for share in saved)]
        print(f"| {block} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
