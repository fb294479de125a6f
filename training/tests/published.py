"""The published architecture as plain functions of a checkpoint's tensors, independent of `didi`.

Converted graphs are compared with it. It has no folding and no padding, and its gradients are autograd's.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = dict[str, Tensor]


def conditioning(w: Tensors, sigma: float) -> Tensor:
    """Return the conditioning [1, cond]: 128 cosines and 128 sines of sigma, an MLP, SiLU."""
    frequency = torch.tensor([10_000.0 ** (-i / 128) for i in range(128)])
    features = torch.cat([torch.cos(sigma * frequency), torch.sin(sigma * frequency)])[None]
    inner = F.silu(F.linear(features, w["sigma_map.mlp.0.weight"], w["sigma_map.mlp.0.bias"]))
    return F.silu(F.linear(inner, w["sigma_map.mlp.2.weight"], w["sigma_map.mlp.2.bias"]))


def rotate(x: Tensor) -> Tensor:
    """Apply rotary positions to x [L, H, D] as complex numbers: pair i is (x_i, x_{i + D/2})."""
    L, _, D = x.shape
    pairs = torch.complex(x[..., : D // 2], x[..., D // 2 :])
    angle = torch.arange(L)[:, None] * torch.tensor([10_000.0 ** (-2 * i / D) for i in range(D // 2)])
    turned = pairs * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, None, 1e-5)


def trunk(w: Tensors, x: Tensor, c: Tensor, heads: int) -> Tensor:
    """Map a canvas of embeddings x [L, d] to the last block's output [L, d]."""
    L, d = x.shape
    n = 0
    while f"blocks.{n}.attn_qkv.weight" in w:
        b = {name.removeprefix(f"blocks.{n}."): t for name, t in w.items() if name.startswith(f"blocks.{n}.")}
        modulation = F.linear(c, b["adaLN_modulation.weight"], b["adaLN_modulation.bias"])[0]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.split(d)
        a = norm(x, b["norm1.weight"]) * (1 + scale_a) + shift_a
        qkv = F.linear(a, b["attn_qkv.weight"])
        q, k, v = (part.view(L, heads, d // heads) for part in qkv.split(d, dim=-1))
        q, k = rotate(q), rotate(k)
        attention = torch.softmax(torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(d // heads), dim=-1)
        mixed = torch.einsum("hij,jhd->ihd", attention, v).reshape(L, d)
        x = x + gate_a * F.linear(mixed, b["attn_out.weight"])
        m = norm(x, b["norm2.weight"]) * (1 + scale_m) + shift_m
        m = F.gelu(F.linear(m, b["mlp.0.weight"], b["mlp.0.bias"]), approximate="tanh")
        x = x + gate_m * F.linear(m, b["mlp.2.weight"], b["mlp.2.bias"])
        n += 1
    return x


def logits(w: Tensors, tokens: Tensor, sigma: float, heads: int) -> Tensor:
    """Map tokens [L] to the student's raw logits [L, V]."""
    c = conditioning(w, sigma)
    x = trunk(w, w["vocab_embed.embedding"][tokens], c, heads)
    adaln = (w[f"output_layer.adaLN_modulation.{part}"] for part in ("weight", "bias"))
    shift, scale = F.linear(c, *adaln)[0].chunk(2)
    x = norm(x, w["output_layer.norm_final.weight"]) * (1 + scale) + shift
    return F.linear(x, w["output_layer.linear.weight"], w["output_layer.linear.bias"])


def scores(w: Tensors, x: Tensor, sigma: float, heads: int) -> Tensor:
    """Map a canvas of embeddings x [L, d] to the discriminator's scores [L]."""

    def spectral(name: str) -> Tensor:
        weight = w[f"{name}.weight_orig"]
        return weight / (w[f"{name}.weight_u"] @ weight @ w[f"{name}.weight_v"])

    x = trunk(w, x, conditioning(w, sigma), heads)
    x = F.silu(F.linear(x, spectral("output_layer.main.0"), w["output_layer.main.0.bias"]))
    return F.linear(x, spectral("output_layer.main.2"), w["output_layer.main.2.bias"])[:, 0]


def log_p(w: Tensors, tokens: Tensor, sigma: float, heads: int, mask_bias: float) -> Tensor:
    """Return log p(x0 | z_t) [L, V]; mask_bias -inf is SUBS, 0 is the network's own softmax."""
    z = logits(w, tokens, sigma, heads).clone()
    z[:, -1] += mask_bias
    return torch.log_softmax(z, dim=-1)


def tilted(
    student: Tensors, judge: Tensors, tokens: Tensor, sigma: float, heads: int, scale: float, mask_bias: float
):
    """Return the tilted log-distribution [L, V] and the reward of the soft canvas."""
    mask_id = len(judge["vocab_embed.embedding"]) - 1
    own = log_p(student, tokens, sigma, heads, mask_bias).detach().requires_grad_(True)
    masked = tokens == mask_id
    soft = torch.softmax(own, dim=-1) @ judge["vocab_embed.embedding"]
    canvas = torch.where(masked[:, None], soft, judge["vocab_embed.embedding"][tokens])
    reward = scores(judge, canvas, sigma, heads)[masked].sum()
    (gradient,) = torch.autograd.grad(reward, own)
    gradient = gradient.nan_to_num().clamp(-1, 1) * masked[:, None]
    return torch.log_softmax((own + scale * gradient).detach(), dim=-1), float(reward.detach())
