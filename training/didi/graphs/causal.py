"""Graphs of a causal model: the decoder with its key-value cache, and the reward `fluency`.

Their matrices are those of `model.safetensors` under GPT-NeoX's names, transposed, so that the graphs read
them from that file and hold none themselves (stored.py).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import BackboneConfig, apply_rotary, attention, rotary_tables
from .stored import Origin

# Keys and values of the tokens so far: for each block a pair of [B, H, T, D].
Cache = list[tuple[Tensor, Tensor]]

LAYERS = {
    "norm1": "input_layernorm.weight",
    "qkv": "attention.query_key_value.weight",
    "out": "attention.dense.weight",
    "norm2": "post_attention_layernorm.weight",
    "up": "mlp.dense_h_to_4h.weight",
    "up_bias": "mlp.dense_h_to_4h.bias",
    "down": "mlp.dense_4h_to_h.weight",
    "down_bias": "mlp.dense_4h_to_h.bias",
}
MATRICES = ("qkv", "out", "up", "down")


class GraphLayer(nn.Module):
    """A block with matrices that multiply from the right, query, key and value ordered by head."""

    def __init__(self, weights: dict[str, Tensor], prefix: str, heads: int):
        super().__init__()
        self.heads = heads
        for name, source in LAYERS.items():
            tensor = weights[prefix + source].float()
            tensor = tensor.T.contiguous() if name in MATRICES else tensor.clone()
            setattr(self, name, nn.Parameter(tensor))

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, keep: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run x [B, S, d] after T cached tokens; return its output, and the keys and values of all T + S."""
        B, S, d = x.shape
        normal = F.layer_norm(x, (d,), self.norm1)
        qkv = (normal @ self.qkv).view(B, S, self.heads, 3, d // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4)
        q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        x = x + attention(q, k, v, keep).transpose(1, 2).reshape(B, S, d) @ self.out
        up = F.layer_norm(x, (d,), self.norm2) @ self.up + self.up_bias
        return x + F.gelu(up, approximate="tanh") @ self.down + self.down_bias, (k, v)


class GraphCausal(nn.Module):
    """A causal model of weights under GPT-NeoX's names."""

    def __init__(self, weights: dict[str, Tensor], config: BackboneConfig):
        super().__init__()
        self.embedding = nn.Parameter(weights["gpt_neox.embed_in.weight"].float())
        names = [f"gpt_neox.layers.{i}." for i in range(config.blocks)]
        self.layers = nn.ModuleList(GraphLayer(weights, name, config.heads) for name in names)
        self.norm = nn.Parameter(weights["gpt_neox.final_layer_norm.weight"].float())
        self.head = nn.Parameter(weights["embed_out.weight"].float().T.contiguous())
        cos, sin = rotary_tables(config.context, config.hidden // config.heads)
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)
        self.requires_grad_(False)

    def origins(self, prefix: str, file: str) -> dict[str, Origin]:
        """Return the origin of each matrix in the weight file, for a module that has this one as `prefix`."""
        found = {
            f"{prefix}.layers.{i}.{name}": Origin(file, f"gpt_neox.layers.{i}.{LAYERS[name]}")
            for i in range(len(self.layers))
            for name in MATRICES
        }
        found[f"{prefix}.embedding"] = Origin(file, "gpt_neox.embed_in.weight", transposed=False)
        found[f"{prefix}.head"] = Origin(file, "embed_out.weight")
        return found

    def extend(self, tokens: Tensor, keep: Tensor, position: Tensor, cache: Cache | None):
        """Run tokens [B, S] that follow T cached ones; return logits [B, S, V] and the new cache.

        `keep` (broadcast over [B, H, S, T + S]) is false at pairs to leave out; `position` is [S] or [B, 1,
        S].
        """
        x, grown = F.embedding(tokens, self.embedding), []
        for i, layer in enumerate(self.layers):
            x, pair = layer(x, self.cos[position], self.sin[position], keep, cache[i] if cache else None)
            grown.append(pair)
        return F.layer_norm(x, (x.shape[-1],), self.norm) @ self.head, grown


class CachedDecoder(nn.Module):
    """The graph: input_ids [B, S], attention_mask [B, T + S] (0 at padding on the left), position_ids [B, S]
    and the cache, two [B, H, T, D] a block -> logits [B, S, V] and the cache of T + S tokens."""

    def __init__(self, model: GraphCausal):
        super().__init__()
        self.model = model

    @property
    def inputs(self) -> list[str]:
        return ["input_ids", "attention_mask", "position_ids", *self.cache_names("past_key_values")]

    @property
    def outputs(self) -> list[str]:
        return ["logits", *self.cache_names("present")]

    def cache_names(self, prefix: str) -> list[str]:
        return [f"{prefix}.{i}.{part}" for i in range(len(self.model.layers)) for part in ("key", "value")]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: list[Tensor]):
        S, total = input_ids.shape[1], attention_mask.shape[1]
        column = torch.arange(total)[None]
        row = torch.arange(S)[:, None] + (total - S)
        keep = (column <= row)[None] & (attention_mask[:, None] > 0)
        pairs = list(zip(cache[0::2], cache[1::2]))
        logits, grown = self.model.extend(input_ids, keep[:, None], position_ids[:, None], pairs)
        return logits, *(tensor for pair in grown for tensor in pair)


class Fluency(nn.Module):
    """The reward `fluency`: the log-likelihood of a canvas under a causal model, in nats.

    Inputs: tokens [B, L] int64, length [B]. Output: reward [B]. Of a whole text it is the total, so that
    weights of exp(reward) multiply the probability of the text by that of the causal model. Candidates of a
    step have masks, not all at the same places, and a total would prefer those with fewer tokens. So the
    mean is taken over the tokens that are known and follow a known one, and multiplied by the length: an
    estimate of the total, which it equals where nothing is masked. Masks are not attended to. A canvas
    without such a token counts as one of equally likely tokens.
    """

    INPUTS = inputs = ("tokens", "length")
    OUTPUTS = ("reward",)

    def __init__(self, model: GraphCausal, end_id: int, mask_id: int):
        super().__init__()
        self.model, self.end_id, self.mask_id = model, end_id, mask_id

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        L = tokens.shape[1]
        before = torch.cat((torch.full_like(tokens[:, :1], self.end_id), tokens[:, :-1]), dim=1)
        position = torch.arange(L)
        causal = position[None] <= position[:, None]
        keep = causal[None] & (before != self.mask_id)[:, None]
        logits, _ = self.model.extend(before, keep[:, None], position, None)
        log_p = torch.log_softmax(logits, dim=-1).gather(-1, tokens[..., None])[..., 0]
        known = (tokens != self.mask_id) & (before != self.mask_id) & (position[None] < length[:, None])
        count = known.float().sum(-1)
        mean = torch.where(known, log_p, 0.0).sum(-1) / count.clamp(min=1)
        return torch.where(count > 0, mean, -math.log(logits.shape[-1])) * length.float()
