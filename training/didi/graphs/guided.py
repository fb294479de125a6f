"""The graphs `tilt` and `score` of reward guidance (RGAS, arXiv 2509.25035, section 4.3).

`tilt` computes the gradient of the discriminator's reward with respect to the soft canvas. ONNX has no
autograd, so the vector-Jacobian product of each layer is written out, in reverse order.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import Backbone, apply_rotary
from ..guidance import Discriminator
from .blocks import GraphBlock, Modulation, Norm, Places, Stored, Trunk, cast, gated, product
from .denoise import Denoise, draw_tokens, quirk_inputs


def gelu_derivative(u: Tensor) -> Tensor:
    """Return d/du of the tanh approximation of GELU."""
    c = math.sqrt(2 / math.pi)
    th = torch.tanh(c * (u + 0.044715 * u**3))
    return 0.5 * (1 + th) + 0.5 * u * (1 - th * th) * c * (1 + 3 * 0.044715 * u * u)


def silu_derivative(a: Tensor) -> Tensor:
    """Return d/da of SiLU."""
    s = torch.sigmoid(a)
    return s * (1 + a * (1 - s))


def norm_backward(norm: Norm, x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient at the input x of a layer norm from the gradient at its output."""
    centred = x - x.mean(-1, keepdim=True)
    inverse = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + 1e-5)
    normal, g = centred * inverse, gradient * norm.weight
    return (g - g.mean(-1, keepdim=True) - normal * (g * normal).mean(-1, keepdim=True)) * inverse


def gradient_product(gradient: Tensor, b: Tensor) -> Tensor:
    """Return a gradient times b; its rows, which may be too small for float16, are scaled to 1 and back."""
    if gradient.dtype == b.dtype:
        return gradient @ b
    size = gradient.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    return product(gradient / size, b) * size


def norm_factor(layer: nn.Linear) -> Tensor:
    """Return the factor of spectral normalisation: 1 / the layer's estimated largest singular value."""
    return 1 / torch.dot(layer.weight_u, layer.weight_orig @ layer.weight_v)


class GraphDiscriminator(nn.Module):
    """The discriminator with spectral norms folded in; `conditioning` as in `Trunk`."""

    MATRICES = ("first", "last")

    def __init__(self, discriminator: Discriminator, conditioning: str = "none"):
        super().__init__()
        self.trunk = Trunk(discriminator.trunk, conditioning, pad=True)
        with torch.no_grad():
            first, last = discriminator.main[0], discriminator.main[2]
            self.first_factor = norm_factor(first)
            self.first = nn.Parameter(first.weight_orig.T.contiguous() * self.first_factor)
            self.last = nn.Parameter(last.weight_orig.T.contiguous() * norm_factor(last))
            self.first_bias = nn.Parameter(first.bias.clone())
            self.last_bias = nn.Parameter(last.bias.clone())
        self.requires_grad_(False)

    def stored(self) -> Stored:
        """Return how the matrix follows from the network (stored.py)."""
        return {"first": ("output_layer.main.0.weight_orig", True, self.first_factor)}

    def head(self, a: Tensor) -> Tensor:
        """Map the first layer's output a [B, L, d] to scores [B, L]."""
        return (product(F.silu(a), self.last) + self.last_bias)[..., 0]

    def scores(self, x: Tensor, at: Places, sigma: Tensor | None = None) -> Tensor:
        """Return the scores [B, L] of a canvas of embeddings x [B, L, d]."""
        for block, m in self.trunk.modulated(self.trunk.condition(sigma)):
            x = block.finish(x, block.attend(x, m, at), m)
        return self.head(product(x, self.first) + self.first_bias)

    def reward_and_gradient(
        self, x: Tensor, at: Places, masked: Tensor, sigma: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return r [B], the sum of scores over `masked` [B, L], and dr/dx [B, L, d]."""
        blocks, tapes = list(self.trunk.modulated(self.trunk.condition(sigma))), []
        for block, m in blocks:
            x, tape = forward_with_tape(block, m, x, at)
            tapes.append(tape)
        a = product(x, self.first) + self.first_bias
        weight = masked.to(x.dtype)
        to_a = (weight[..., None] * cast(self.last[:, 0], x.dtype)) * silu_derivative(a)
        gradient = gradient_product(to_a, self.first.T)
        for (block, m), tape in zip(reversed(blocks), reversed(tapes)):
            gradient = block_backward(block, m, tape, gradient, at)
        return (self.head(a) * weight).sum(-1), gradient


def forward_with_tape(
    block: GraphBlock, m: Modulation, x: Tensor, at: Places
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return a block's output [B, L, d] and what its backward pass needs."""
    q, k, v = block.heads_of(m.norm1(x), at)
    weights = block.weights(q, k, at.bias)
    middle = x + gated(product(block.mix(weights, v), block.out), m.gate1)
    up = product(m.norm2(middle), block.up) + block.up_bias
    out = middle + gated(product(F.gelu(up, approximate="tanh"), block.down) + block.down_bias, m.gate2)
    return out, (x, q, k, v, weights, middle, up)


def block_backward(
    block: GraphBlock, m: Modulation, tape: tuple[Tensor, ...], gradient: Tensor, at: Places
) -> Tensor:
    """Return the gradient at a block's input from the gradient at its output, both [B, L, d]."""
    x, q, k, v, weights, middle, up = tape
    B, L, d = x.shape
    dtype = block.qkv.dtype
    inner = gradient_product(gated(gradient, m.gate2), block.down.T) * gelu_derivative(up)
    gradient = gradient + norm_backward(m.norm2, middle, gradient_product(inner, block.up.T))
    mixed = gradient_product(gated(gradient, m.gate1), block.out.T)
    mixed = mixed.view(B, L, block.heads, block.head_dim).transpose(1, 2)
    to_weights = gradient_product(mixed, cast(v.transpose(-1, -2), dtype))
    to_scores = weights * (to_weights - (to_weights * weights).sum(-1, keepdim=True))
    # The transpose of a rotation turns the other way.
    to_q = apply_rotary(gradient_product(to_scores, cast(k, dtype)), at.cos, -at.sin)
    to_k = apply_rotary(gradient_product(to_scores.transpose(-1, -2), cast(q, dtype)), at.cos, -at.sin)
    # Transposed, so that the gradient is the operand that is scaled.
    to_v = gradient_product(mixed.transpose(-1, -2), cast(weights, dtype)).transpose(-1, -2)
    to_qkv = torch.stack((to_q, to_k, to_v)).permute(1, 3, 0, 2, 4).reshape(B, L, 3 * d)
    return gradient + norm_backward(m.norm1, x, gradient_product(to_qkv, block.qkv.T))


class Score(nn.Module):
    """The module behind the graph `score`.

    Inputs: tokens [B, L] int64, length [B]. Output: reward [B], the sum of the discriminator's scores over
    the canvas.

    With `conditioning` "sigma" there is one more input, sigma [B]. The reference scores the candidates of a
    step from t to s at time s, so that is sigma(s), where `Tilt` takes sigma(t).
    """

    INPUTS = ("tokens", "length")
    OUTPUTS = ("reward",)

    def __init__(self, discriminator: Discriminator, conditioning: str = "none"):
        super().__init__()
        self.inputs = self.INPUTS + quirk_inputs(conditioning, "removed")
        self.discriminator = GraphDiscriminator(discriminator, conditioning)

    def forward(self, tokens: Tensor, length: Tensor, sigma: Tensor | None = None) -> Tensor:
        d = self.discriminator
        scores = d.scores(d.trunk.embed(tokens), d.trunk.places(tokens, length), sigma)
        inside = torch.arange(tokens.shape[1], device=tokens.device)[None] < length[:, None]
        return (scores * inside.float()).sum(-1)


class Tilt(nn.Module):
    """The module behind the graph `tilt`: `Denoise` with gradient tilting.

    One more input than `Denoise`: scale [B]. One more output: reward [B], the sum r of scores over the masked
    positions of the soft canvas, in which a masked position is softmax(log p) @ E. With e = dr/d(embedding)
    and a = E e, the gradient with respect to log p is g = p (a - sum p a), clipped to [-1, 1]; the draw is
    from softmax(log p + scale g). `logprob` and `entropy` are the student's own, before tilting.

    `conditioning` and `mask_logit` are those of `Denoise`, with one sigma [B] for both networks. A kept mask
    logit has its share of p in the soft canvas; mask_bias [B] applies to the draw alone. The reference draws
    once, from p_v (alpha_s - alpha_t) for tokens and 1 - alpha_s for staying masked, without the mask's own
    p. With mask_bias = ln((1 - alpha_s) / (1 - alpha_t)), drawing at the positions that the step picked first
    gives that distribution.
    """

    INPUTS = (*Denoise.INPUTS, "scale")
    OUTPUTS = (*Denoise.OUTPUTS, "reward")
    CLIP = 1.0

    def __init__(
        self,
        student: Backbone,
        discriminator: Discriminator,
        conditioning: str = "none",
        mask_logit: str = "removed",
    ):
        super().__init__()
        self.inputs = self.INPUTS + quirk_inputs(conditioning, mask_logit)
        self.student = Denoise(student, conditioning, mask_logit)
        self.discriminator = GraphDiscriminator(discriminator, conditioning)
        self.mask_id = student.config.mask_id

    def tilt(
        self, tokens: Tensor, length: Tensor, picks: Tensor, scale: Tensor, sigma: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the student's log p and the tilted log p at the picks, each [P, V padded], and r [B]."""
        B, L = tokens.shape
        trunk = self.discriminator.trunk
        positions = torch.arange(L, device=tokens.device)
        every = torch.stack(
            (torch.arange(B)[:, None].expand(B, L), positions[None].expand(B, L)), -1
        ).reshape(-1, 2)
        log_p = torch.log_softmax(self.student.logits(tokens, length, every, sigma), dim=-1).view(B, L, -1)
        masked = (tokens == self.mask_id) & (positions[None] < length[:, None])
        canvas = torch.where(masked[..., None], product(log_p.exp(), trunk.embedding), trunk.embed(tokens))
        at = trunk.places(tokens, length)
        reward, gradient = self.discriminator.reward_and_gradient(canvas, at, masked, sigma)
        row, position = picks[:, 0], picks[:, 1]
        own = log_p[row, position]
        p, a = own.exp(), gradient_product(gradient[row, position], trunk.embedding.T)
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
        top_k: Tensor,
        top_p: Tensor,
        alternatives: Tensor,
        scale: Tensor,
        sigma: Tensor | None = None,
        mask_bias: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        own, tilted, reward = self.tilt(tokens, length, picks, scale, sigma)
        target = self.student.biased(tilted, picks, mask_bias)
        token = draw_tokens(target[draws], uniform, temperature, top_k, top_p)
        logprob = own[draws].gather(-1, token[:, None])[:, 0]
        top = target.topk(alternatives.shape[0], dim=-1).indices
        return token, logprob, -(own.exp() * own).sum(-1), top, own.gather(-1, top), reward
