"""Causal language models with the same trunk sizes: the judge that grades samples, and the autoregressive peer.

Blocks are those of the denoiser without adaLN, looking back only: a GPT-NeoX with rotary positions over the
whole head and no parallel residual. Trained by `python -m didi.train --objective causal`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import BackboneConfig, BlockLayers, Embedding, LayerNorm, apply_rotary, attention, rotary_tables

# Keys and values of the tokens so far, one pair of [B, H, T, D] for each block.
Cache = list[tuple[Tensor, Tensor]]


class CausalBlock(BlockLayers):
    """Pre-norm attention over the past and itself, then the MLP."""

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, keep: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [B, S, d] after T cached tokens -> its output, and the keys and values of all T + S."""
        B, S, d = x.shape
        qkv = self.attn_qkv(self.norm1(x)).view(B, S, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        x = x + self.dropout(self.attn_out(attention(q, k, v, keep).transpose(1, 2).reshape(B, S, d)))
        return x + self.dropout(self.mlp(self.norm2(x))), (k, v)


class CausalLM(nn.Module):
    """p(next token | tokens so far): ids [B, L] -> logits [B, L, V] (the mask's is never trained)."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.config = config
        self.vocab_embed = Embedding(config.vocab_size, config.hidden)
        self.blocks = nn.ModuleList(CausalBlock(config) for _ in range(config.blocks))
        self.norm_final = LayerNorm(config.hidden)
        self.linear = nn.Linear(config.hidden, config.vocab_size, bias=False)
        cos, sin = rotary_tables(config.context, config.hidden // config.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for block in self.blocks:
            # Residual branches start at zero, as the denoiser's gates do.
            nn.init.zeros_(block.attn_out.weight)
            nn.init.zeros_(block.mlp[2].weight)
        nn.init.zeros_(self.linear.weight)

    def extend(self, tokens: Tensor, keep: Tensor, position: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Final hidden states [B, S, d] of tokens [B, S] that follow the cached ones, and the longer cache.

        `keep` (broadcast over [B, H, S, T + S]) is false where none looks; `position` [S] or [B, 1, S].
        """
        x, grown = self.vocab_embed(tokens), []
        for i, block in enumerate(self.blocks):
            x, pair = block(x, self.cos[position], self.sin[position], keep, cache[i] if cache else None)
            grown.append(pair)
        return self.norm_final(x), grown

    def forward(self, tokens: Tensor) -> Tensor:
        L = tokens.shape[1]
        if L > self.config.context:
            raise ValueError(f"{L} tokens are longer than the context of {self.config.context}")
        keep = torch.ones(L, L, dtype=torch.bool).tril()
        return self.linear(self.extend(tokens, keep, torch.arange(L), None)[0])


def next_token_nats(model: CausalLM, x: Tensor, end_id: int) -> Tensor:
    """Nats of each token of x [B, L] given those before it [B, L]; the first follows an end of text."""
    before = torch.cat((torch.full_like(x[:, :1], end_id), x[:, :-1]), dim=1)
    return F.cross_entropy(model(before).float().flatten(0, 1), x.flatten(), reduction="none").view_as(x)


@torch.no_grad()
def sample_causal(model: CausalLM, count: int, length: int, end_id: int) -> Tensor:
    """[count, length] ids one token at a time after an end of text, by torch's generator; the mask is never drawn."""
    tokens = torch.full((count, 1), end_id)
    cache, written = None, []
    for i in range(length):
        keep = torch.ones(i + 1, dtype=torch.bool)
        hidden, cache = model.extend(tokens, keep, torch.tensor([i]), cache)
        logits = model.linear(hidden[:, -1])
        logits[:, model.config.mask_id] = -torch.inf
        tokens = torch.multinomial(torch.softmax(logits, dim=-1), 1)
        written.append(tokens)
    return torch.cat(written, dim=1)
