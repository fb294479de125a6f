"""Causal language models with the same trunk sizes: the judge that grades samples, and the autoregressive peer.

Blocks are those of the denoiser without adaLN, looking back only. Trained by
`python -m didi.train --objective causal`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import BackboneConfig, BlockLayers, Embedding, LayerNorm, rotary_tables


class CausalBlock(BlockLayers):
    """Pre-norm attention over the past and itself, then the MLP."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x), cos, sin, past)
        return x + self.mlp(self.norm2(x))


class CausalLM(nn.Module):
    """p(next token | tokens so far): ids [B, L] -> logits [B, L, V] (the mask's is never trained)."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.config = config
        self.vocab_embed = Embedding(config.vocab_size, config.hidden)
        self.blocks = nn.ModuleList(CausalBlock(config) for _ in range(config.blocks))
        self.norm_final = LayerNorm(config.hidden)
        self.linear = nn.Linear(config.hidden, config.vocab_size)
        cos, sin = rotary_tables(config.context, config.hidden // config.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for block in self.blocks:
            # Residual branches start at zero, as the denoiser's gates do.
            nn.init.zeros_(block.attn_out.weight)
            nn.init.zeros_(block.mlp[2].weight)
        nn.init.zeros_(self.linear.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        L = tokens.shape[1]
        if L > self.config.context:
            raise ValueError(f"{L} tokens are longer than the context of {self.config.context}")
        past = torch.ones(L, L, dtype=torch.bool).tril()
        x = self.vocab_embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos[:L], self.sin[:L], past)
        return self.linear(self.norm_final(x))


def next_token_nats(model: CausalLM, x: Tensor, end_id: int) -> Tensor:
    """Nats of each token of x [B, L] given those before it [B, L]; the first follows an end of text."""
    before = torch.cat((torch.full_like(x[:, :1], end_id), x[:, :-1]), dim=1)
    return F.cross_entropy(model(before).float().transpose(1, 2), x, reduction="none")
