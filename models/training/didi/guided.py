"""The graphs of reward guidance (RGAS, arXiv 2509.25035 section 4.3): `Tilt` and `Score`.

`Tilt` holds the gradient of the discriminator to the soft canvas. ONNX has no autograd, so the
vector-Jacobian product is written out: the formulas of each layer, in reverse.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import Backbone, apply_rotary
from .discriminator import Discriminator
from .graphs import ALIGNMENT, IMPOSSIBLE, AffineNorm, Denoise, FoldedBlock, inverse_cdf


def gelu_derivative(u: Tensor) -> Tensor:
    """d/du of the tanh approximation of GELU."""
    c = math.sqrt(2 / math.pi)
    th = torch.tanh(c * (u + 0.044715 * u**3))
    return 0.5 * (1 + th) + 0.5 * u * (1 - th * th) * c * (1 + 3 * 0.044715 * u * u)


def silu_derivative(a: Tensor) -> Tensor:
    s = torch.sigmoid(a)
    return s * (1 + a * (1 - s))


def norm_backward(norm: AffineNorm, x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient to the input x of a layer norm, from the gradient to its output."""
    centred = x - x.mean(-1, keepdim=True)
    inverse = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)
    normal, g = centred * inverse, gradient * norm.weight
    return (g - g.mean(-1, keepdim=True) - normal * (g * normal).mean(-1, keepdim=True)) * inverse


def normalised(layer: nn.Linear) -> Tensor:
    """The weight of a spectrally normalised layer, divided by its estimated largest singular value."""
    weight = layer.weight_orig
    return weight / torch.dot(layer.weight_u, weight @ layer.weight_v)


class FoldedDiscriminator(nn.Module):
    """The discriminator at sigma = 0, adaLN folded in and spectral norms divided out."""

    def __init__(self, discriminator: Discriminator):
        super().__init__()
        trunk = discriminator.trunk
        with torch.no_grad():
            c = trunk.condition(torch.zeros(1))
            self.embedding = nn.Parameter(trunk.vocab_embed.embedding.clone())
            self.blocks = nn.ModuleList(FoldedBlock(block, c) for block in trunk.blocks)
            first, last = discriminator.main[0], discriminator.main[2]
            self.first, self.first_bias = nn.Parameter(normalised(first).T.clone()), nn.Parameter(first.bias.clone())
            self.last, self.last_bias = nn.Parameter(normalised(last).T.clone()), nn.Parameter(last.bias.clone())
        self.register_buffer("cos", trunk.cos)
        self.register_buffer("sin", trunk.sin)
        self.requires_grad_(False)

    def head(self, x: Tensor) -> Tensor:
        return (F.silu(x @ self.first + self.first_bias) @ self.last + self.last_bias)[..., 0]

    def scores(self, x: Tensor, bias: Tensor) -> Tensor:
        """Scores [B, L] of a canvas of embeddings x [B, L, d]; `bias` masks padding in attention."""
        cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        for block in self.blocks:
            x = block.finish(x, block.attend(x, cos, sin, bias))
        return self.head(x)

    def reward_and_gradient(self, x: Tensor, bias: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """r [B] = sum of scores over `masked` [B, L], and dr/dx [B, L, d]."""
        cos, sin = self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        tapes = []
        for block in self.blocks:
            x, tape = forward_with_tape(block, x, cos, sin, bias)
            tapes.append(tape)
        a = x @ self.first + self.first_bias
        scores = (F.silu(a) @ self.last + self.last_bias)[..., 0]
        weight = masked.to(x.dtype)
        gradient = ((weight[..., None] * self.last[:, 0]) * silu_derivative(a)) @ self.first.T
        for block, tape in zip(reversed(self.blocks), reversed(tapes)):
            gradient = block_backward(block, tape, gradient, cos, sin)
        return (scores * weight).sum(-1), gradient


def split_heads(block: FoldedBlock, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, L, _ = qkv.shape
    return qkv.view(B, L, 3, block.heads, block.head_dim).permute(2, 0, 3, 1, 4).unbind(0)


def forward_with_tape(
    block: FoldedBlock, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A block's output [B, L, d], with what its backward pass needs."""
    B, L, d = x.shape
    q, k, v = split_heads(block, block.norm1(x) @ block.qkv)
    q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
    weights = torch.softmax(q @ k.transpose(-1, -2) + bias, dim=-1)
    middle = x + (weights @ v).transpose(1, 2).reshape(B, L, d) @ block.out
    up = block.norm2(middle) @ block.up + block.up_bias
    out = middle + (F.gelu(up, approximate="tanh") @ block.down + block.down_bias)
    return out, (x, q, k, v, weights, middle, up)


def block_backward(block: FoldedBlock, tape: tuple[Tensor, ...], gradient: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Gradient to a block's input from the gradient to its output, both [B, L, d]."""
    x, q, k, v, weights, middle, up = tape
    B, L, d = x.shape
    inner = (gradient @ block.down.T) * gelu_derivative(up)
    gradient = gradient + norm_backward(block.norm2, middle, inner @ block.up.T)
    mixed = (gradient @ block.out.T).view(B, L, block.heads, block.head_dim).transpose(1, 2)
    to_weights = mixed @ v.transpose(-1, -2)
    to_scores = weights * (to_weights - (to_weights * weights).sum(-1, keepdim=True))
    # Rotations are orthogonal: their transpose turns the other way.
    to_q = apply_rotary(to_scores @ k, cos, -sin)
    to_k = apply_rotary(to_scores.transpose(-1, -2) @ q, cos, -sin)
    to_v = weights.transpose(-1, -2) @ mixed
    to_qkv = torch.stack((to_q, to_k, to_v)).permute(1, 3, 0, 2, 4).reshape(B, L, 3 * d)
    return gradient + norm_backward(block.norm1, x, to_qkv @ block.qkv.T)


def padding_bias(tokens: Tensor, length: Tensor) -> Tensor:
    """Attention bias [B, 1, 1, L]: IMPOSSIBLE at positions at and beyond `length` [B]."""
    padding = torch.arange(tokens.shape[1], device=tokens.device)[None] >= length[:, None]
    return padding[:, None, None, :].float() * IMPOSSIBLE


class Score(nn.Module):
    """tokens [B, L] int64, length [B] -> reward [B]: the sum of the discriminator's scores over the canvas."""

    INPUTS = ("tokens", "length")
    OUTPUTS = ("reward",)

    def __init__(self, discriminator: Discriminator):
        super().__init__()
        self.discriminator = FoldedDiscriminator(discriminator)

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        d = self.discriminator
        scores = d.scores(F.embedding(tokens, d.embedding), padding_bias(tokens, length))
        inside = torch.arange(tokens.shape[1], device=tokens.device)[None] < length[:, None]
        return (scores * inside.float()).sum(-1)


class Tilt(nn.Module):
    """`Denoise` with gradient tilting: its inputs and scale [B] -> its outputs and reward [B].

    Masked positions enter the discriminator as softmax(log p) @ E. With e = dr/d(embedding) and a = E e, the
    gradient to log p is g = p (a - sum p a), clipped to [-1, 1]; the draw is from softmax(log p + scale g).
    `logprob` and `entropy` are the student's own, before tilting. `reward` is r, the sum of scores over the
    masked positions of the soft canvas.
    """

    INPUTS = (*Denoise.INPUTS, "scale")
    OUTPUTS = (*Denoise.OUTPUTS, "reward")
    CLIP = 1.0

    def __init__(self, student: Backbone, discriminator: Discriminator):
        super().__init__()
        self.student = Denoise(student)
        self.discriminator = FoldedDiscriminator(discriminator)
        self.mask_id = student.config.mask_id
        # As wide as the head, so that a soft embedding is one product.
        embedding = self.discriminator.embedding
        self.soft = nn.Parameter(F.pad(embedding, (0, 0, 0, -len(embedding) % ALIGNMENT)), requires_grad=False)

    def tilt(self, tokens: Tensor, length: Tensor, picks: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Student's log p and the tilted log-probabilities at the picks, each [P, V rounded up], and r [B]."""
        B, L = tokens.shape
        positions = torch.arange(L, device=tokens.device)
        every = torch.stack((torch.arange(B)[:, None].expand(B, L), positions[None].expand(B, L)), -1).reshape(-1, 2)
        log_p = torch.log_softmax(self.student.logits(tokens, length, every), dim=-1).view(B, L, -1)
        masked = (tokens == self.mask_id) & (positions[None] < length[:, None])
        hard = F.embedding(tokens, self.discriminator.embedding)
        canvas = torch.where(masked[..., None], log_p.exp() @ self.soft, hard)
        reward, gradient = self.discriminator.reward_and_gradient(canvas, padding_bias(tokens, length), masked)
        row, position = picks[:, 0], picks[:, 1]
        own = log_p[row, position]
        p, a = own.exp(), gradient[row, position] @ self.soft.T
        g = (p * (a - (p * a).sum(-1, keepdim=True))).clamp(-self.CLIP, self.CLIP)
        return own, torch.log_softmax(own + scale[row, None] * g, dim=-1), reward

    def forward(
        self,
        tokens: Tensor,
        length: Tensor,
        picks: Tensor,
        draws: Tensor,
        uniform: Tensor,
        temperature: Tensor,
        scale: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own, tilted, reward = self.tilt(tokens, length, picks, scale)
        token = inverse_cdf(tilted[draws], uniform, temperature)
        logprob = own[draws].gather(-1, token[:, None])[:, 0]
        return token, logprob, -(own.exp() * own).sum(-1), reward
