"""The graphs the server runs, as PyTorch modules ready for export.

`Denoise` is the backbone at sigma = 0 with every adaLN constant folded into the weights, the
output head on the picked positions only, and the draw inside: no logits leave the graph.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Backbone, Block, apply_rotary


# Logit of what must never be drawn: its probability is exactly 0 in float32.
IMPOSSIBLE = -1e9

# The vocabulary axis is padded to a multiple of this. ONNX Runtime sums a row in an order that depends
# on its alignment in memory; aligned rows have the same sum, to the bit, wherever they stand in a batch.
ALIGNMENT = 16


class AffineNorm(nn.Module):
    """Layer norm with adaLN folded in: weight w (1 + scale), bias shift."""

    def __init__(self, weight: Tensor, shift: Tensor, scale: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight * (1 + scale))
        self.bias = nn.Parameter(shift.clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias)


class FoldedBlock(nn.Module):
    """A block whose shifts and scales sit in its norms and whose gates sit in its projections."""

    def __init__(self, block: Block, c: Tensor):
        super().__init__()
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = block.adaLN_modulation(c)[0].chunk(6)
        d = block.attn_out.weight.shape[0]
        self.heads, self.head_dim = block.heads, d // block.heads
        self.norm1 = AffineNorm(block.norm1.weight, shift_a, scale_a)
        self.norm2 = AffineNorm(block.norm2.weight, shift_m, scale_m)
        qkv = block.attn_qkv.weight.clone()
        qkv[:d] *= self.head_dim**-0.5
        self.qkv = nn.Parameter(qkv.T.contiguous())
        self.out = nn.Parameter((block.attn_out.weight * gate_a[:, None]).T.contiguous())
        self.up = nn.Parameter(block.mlp[0].weight.T.contiguous())
        self.up_bias = nn.Parameter(block.mlp[0].bias.clone())
        self.down = nn.Parameter((block.mlp[2].weight * gate_m[:, None]).T.contiguous())
        self.down_bias = nn.Parameter(block.mlp[2].bias * gate_m)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor) -> Tensor:
        """x [B, L, d] -> the heads' mixtures [B, L, d], before the output projection."""
        B, L, d = x.shape
        qkv = (self.norm1(x) @ self.qkv).view(B, L, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        weights = torch.softmax(q @ k.transpose(-1, -2) + bias, dim=-1)
        return (weights @ v).transpose(1, 2).reshape(B, L, d)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Output projection and MLP; position-wise, so any leading shape will do."""
        x = x + mixed @ self.out
        hidden = F.gelu(self.norm2(x) @ self.up + self.up_bias, approximate="tanh")
        return x + (hidden @ self.down + self.down_bias)


def inverse_cdf(log_p: Tensor, uniform: Tensor, temperature: Tensor) -> Tensor:
    """Tokens [S] from log_p [S, V] sharpened by temperature [S]: the first whose cumulative weight reaches
    uniform [S] times the total, or the likeliest at temperature 0."""
    shifted = log_p - log_p.amax(dim=-1, keepdim=True)
    cdf = (shifted / temperature.clamp(min=1e-6)[:, None]).exp().cumsum(dim=-1)
    below = (cdf < uniform[:, None] * cdf[:, -1:]).sum(dim=-1)
    return torch.where(temperature > 0, below, log_p.argmax(dim=-1))


class Denoise(nn.Module):
    """tokens [B, L] int64, length [B], picks [P, 2] (row, position), draws [S] (index into picks),
    uniform [S], temperature [S] -> token [S] int64, logprob [S], entropy [P] (nats, at temperature 1).

    `logprob` is that of the drawn token under p(x0 | z_t) itself, whatever the temperature of the
    draw. Temperature 0 takes the most likely token. The mask is never drawn (SUBS). In the last
    block only the picked positions reach projection, MLP and head.
    """

    INPUTS = ("tokens", "length", "picks", "draws", "uniform", "temperature")
    OUTPUTS = ("token", "logprob", "entropy")

    def __init__(self, backbone: Backbone):
        super().__init__()
        with torch.no_grad():
            c = backbone.condition(torch.zeros(1))
            self.embedding = nn.Parameter(backbone.vocab_embed.embedding.clone())
            self.blocks = nn.ModuleList(FoldedBlock(block, c) for block in backbone.blocks)
            layer = backbone.output_layer
            shift, scale = layer.adaLN_modulation(c)[0].chunk(2)
            self.norm = AffineNorm(layer.norm_final.weight, shift, scale)
            head, bias = layer.linear.weight.clone(), layer.linear.bias.clone()
            head[-1], bias[-1] = 0, IMPOSSIBLE
            pad = -len(head) % ALIGNMENT
            self.head = nn.Parameter(F.pad(head, (0, 0, 0, pad)).T.contiguous())
            self.head_bias = nn.Parameter(F.pad(bias, (0, pad), value=IMPOSSIBLE))
        self.register_buffer("cos", backbone.cos)
        self.register_buffer("sin", backbone.sin)
        self.requires_grad_(False)

    def logits(self, tokens: Tensor, length: Tensor, picks: Tensor) -> Tensor:
        """Logits [P, V rounded up] at the picked positions; the mask and the padding are IMPOSSIBLE."""
        L = tokens.shape[1]
        positions = torch.arange(L, device=tokens.device)
        padding = positions[None, :] >= length[:, None]
        bias = padding[:, None, None, :].to(self.embedding.dtype) * IMPOSSIBLE
        cos, sin = self.cos[:L], self.sin[:L]
        x = F.embedding(tokens, self.embedding)
        for block in self.blocks[:-1]:
            x = block.finish(x, block.attend(x, cos, sin, bias))
        last = self.blocks[-1]
        mixed = last.attend(x, cos, sin, bias)
        row, position = picks[:, 0], picks[:, 1]
        x = last.finish(x[row, position], mixed[row, position])
        return self.norm(x) @ self.head + self.head_bias

    def forward(
        self, tokens: Tensor, length: Tensor, picks: Tensor, draws: Tensor, uniform: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.logits(tokens, length, picks)
        # One kernel a row: a plain log of a column of sums would be rounded by its place in the column.
        log_p = torch.log_softmax(logits, dim=-1)
        entropy = -(log_p.exp() * log_p).sum(dim=-1)

        drawn = log_p[draws]
        token = inverse_cdf(drawn, uniform, temperature)
        logprob = drawn.gather(-1, token[:, None])[:, 0]
        return token, logprob, entropy
