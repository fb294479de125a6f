"""Transformer blocks as the exported graphs run them.

Matrices multiply from the right. adaLN is folded into them at sigma = 0, or computed from sigma in the graph.
Products are in float16 where the matrices are.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import Backbone, Block, apply_rotary
from .trace import OPSET

# Logit of what must never be drawn: its probability is exactly 0 in float32.
IMPOSSIBLE = -1e9

# The vocabulary axis is padded to a multiple of this. ONNX Runtime sums a row in an order that depends on its
# alignment in memory; an aligned row has the same sum, to the bit, at any place in a batch.
ALIGNMENT = 16

# Values of the manifest's field `conditioning` (models/model.schema.json).
CONDITIONINGS = ("none", "sigma")

# How a module's matrices follow from the network: name -> tensor, whether it is transposed, factor of its
# columns.
Stored = dict[str, tuple[str, bool, Tensor | None]]


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in `dtype`, without a node in the graph if it is so already."""
    return x if x.dtype == dtype else x.to(dtype)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b, computed in b's dtype and returned in a's: float32 activations times float16 weights."""
    return cast(cast(a, b.dtype) @ b, a.dtype)


class Norm(NamedTuple):
    """Layer norm with adaLN: weight w (1 + scale) and bias shift, each [d], or for each row [B, 1, d]."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        width = (x.shape[-1],)
        if self.weight.ndim == 1:
            return F.layer_norm(x, width, self.weight, self.bias)
        return F.layer_norm(x, width) * self.weight + self.bias

    def at(self, row: Tensor) -> "Norm":
        """Return the norm for picked positions [P, d] of the rows `row` [P]."""
        return self if self.weight.ndim == 1 else Norm(self.weight[row, 0], self.bias[row, 0])


class Modulation(NamedTuple):
    """What adaLN sets in a block. Gates are [B, 1, d], or None where they are folded into the projections."""

    norm1: Norm
    gate1: Tensor | None
    norm2: Norm
    gate2: Tensor | None

    def at(self, row: Tensor) -> "Modulation":
        """Return the modulation for picked positions of the rows `row` [P]."""
        gates = (gate if gate is None else gate[row, 0] for gate in (self.gate1, self.gate2))
        return Modulation(self.norm1.at(row), next(gates), self.norm2.at(row), next(gates))


def gated(x: Tensor, gate: Tensor | None) -> Tensor:
    return x if gate is None else gate * x


class AffineNorm(nn.Module):
    """A norm's parameters with adaLN folded in."""

    def __init__(self, weight: Tensor, shift: Tensor, scale: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight * (1 + scale))
        self.bias = nn.Parameter(shift.clone())

    def modulated(self, c: None) -> Norm:
        return Norm(self.weight, self.bias)


class AdaptiveNorm(nn.Module):
    """A norm whose shift and scale follow the conditioning vector c [B, cond]."""

    def __init__(self, weight: Tensor, modulation: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.adaLN = copy.deepcopy(modulation)

    def modulated(self, c: Tensor) -> Norm:
        shift, scale = self.adaLN(c)[:, None].chunk(2, dim=2)
        return Norm(self.weight * (1 + scale), shift)


class Places(NamedTuple):
    """Positions and padding of the canvases of a batch, in the forms that attention takes."""

    cos: Tensor  # [L, D], of the rotary angles
    sin: Tensor
    bias: Tensor  # [B, 1, 1, L], IMPOSSIBLE at padding
    table: tuple[Tensor, Tensor]  # cosines and sines [context, D / 2]
    index: Tensor  # [B, L], position in the row
    length: Tensor  # [B], tokens without padding


def operator(name: str, inputs: Sequence[Tensor | None], attributes: dict, like: Tensor) -> Tensor:
    """Insert an ONNX operator during export; its result has the type and shape of `like`."""
    return torch.onnx.ops.symbolic(
        name, inputs, attributes, dtype=like.dtype, shape=like.shape, version=OPSET
    )


class GraphBlock(nn.Module, ABC):
    """A block with matrices that multiply from the right; subclasses say what adaLN does to it."""

    MATRICES = ("qkv", "out", "up", "down")

    def __init__(self, block: Block):
        super().__init__()
        d = block.attn_out.weight.shape[0]
        self.heads, self.head_dim = block.heads, d // block.heads
        self.factors = {"qkv": torch.cat((torch.full((d,), self.head_dim**-0.5), torch.ones(2 * d)))}
        self.qkv = nn.Parameter(block.attn_qkv.weight.T.contiguous() * self.factors["qkv"])
        self.out = nn.Parameter(block.attn_out.weight.T.contiguous())
        self.up = nn.Parameter(block.mlp[0].weight.T.contiguous())
        self.up_bias = nn.Parameter(block.mlp[0].bias.clone())
        self.down = nn.Parameter(block.mlp[2].weight.T.contiguous())
        self.down_bias = nn.Parameter(block.mlp[2].bias.clone())

    def stored(self) -> Stored:
        """Return how each matrix follows from the network (stored.py)."""
        tensors = {
            "qkv": "attn_qkv.weight",
            "out": "attn_out.weight",
            "up": "mlp.0.weight",
            "down": "mlp.2.weight",
        }
        return {name: (tensor, True, self.factors.get(name)) for name, tensor in tensors.items()}

    @abstractmethod
    def modulation(self, c: Tensor | None) -> Modulation:
        """Return what adaLN makes of the conditioning vector c [B, cond]; c is None where it is folded in."""

    def heads_of(self, x: Tensor, at: Places) -> tuple[Tensor, Tensor, Tensor]:
        """Map normed x [B, L, d] to rotated queries, rotated keys and values, each [B, H, L, D]."""
        B, L, _ = x.shape
        qkv = product(x, self.qkv).view(B, L, 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return apply_rotary(q, at.cos, at.sin), apply_rotary(k, at.cos, at.sin), v

    def weights(self, q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
        """Return attention weights [B, H, L, L]."""
        return torch.softmax(product(q, cast(k.transpose(-1, -2), self.qkv.dtype)) + bias, dim=-1)

    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        """Return the heads' mixtures [B, L, d], before the output projection."""
        B, _, L, _ = v.shape
        return product(weights, cast(v, self.qkv.dtype)).transpose(1, 2).reshape(B, L, -1)

    def attend(self, x: Tensor, m: Modulation, at: Places) -> Tensor:
        """Map x [B, L, d] to the heads' mixtures [B, L, d], before the output projection."""
        if torch.compiler.is_exporting() and self.qkv.dtype == torch.float32:
            return self.attend_fused(m.norm1(x), at)
        q, k, v = self.heads_of(m.norm1(x), at)
        return self.mix(self.weights(q, k, at.bias), v)

    def attend_fused(self, x: Tensor, at: Places) -> Tensor:
        """Do `attend` for a normed x by ONNX's RotaryEmbedding and Attention.

        They take half of the time on the CPU, and a row's result does not depend on the other rows.
        """
        rotated = {"num_heads": self.heads, "interleaved": 0}
        q, k, v = (part.contiguous() for part in product(x, self.qkv).chunk(3, dim=-1))
        q, k = (
            operator("RotaryEmbedding", (part, *at.table, at.index), rotated, like=part) for part in (q, k)
        )
        heads = {"q_num_heads": self.heads, "kv_num_heads": self.heads, "scale": 1.0}
        return operator("Attention", (q, k, v, None, None, None, at.length), heads, like=q)

    def finish(self, x: Tensor, mixed: Tensor, m: Modulation) -> Tensor:
        """Apply output projection and MLP; position-wise, so any leading shape that suits `m` will do."""
        x = x + gated(product(mixed, self.out), m.gate1)
        hidden = F.gelu(product(m.norm2(x), self.up) + self.up_bias, approximate="tanh")
        return x + gated(product(hidden, self.down) + self.down_bias, m.gate2)


class FoldedBlock(GraphBlock):
    """A block at one fixed sigma: shifts and scales are in its norms, gates in its projections."""

    def __init__(self, block: Block, c: Tensor):
        super().__init__(block)
        shift1, scale1, gate1, shift2, scale2, gate2 = block.adaLN_modulation(c)[0].chunk(6)
        self.norm1 = AffineNorm(block.norm1.weight, shift1, scale1)
        self.norm2 = AffineNorm(block.norm2.weight, shift2, scale2)
        self.factors |= {"out": gate1, "down": gate2}
        self.out.mul_(gate1)
        self.down.mul_(gate2)
        self.down_bias.mul_(gate2)

    def modulation(self, c: None) -> Modulation:
        return Modulation(self.norm1.modulated(c), None, self.norm2.modulated(c), None)


class AdaptiveBlock(GraphBlock):
    """A block whose shifts, scales and gates the graph computes from sigma."""

    def __init__(self, block: Block):
        super().__init__(block)
        self.norm1 = nn.Parameter(block.norm1.weight.clone())
        self.norm2 = nn.Parameter(block.norm2.weight.clone())
        self.adaLN = copy.deepcopy(block.adaLN_modulation)

    def stored(self) -> Stored:
        return {**super().stored(), "adaLN.weight": ("adaLN_modulation.weight", False, None)}

    def modulation(self, c: Tensor) -> Modulation:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN(c)[:, None].chunk(6, dim=2)
        norm1, norm2 = Norm(self.norm1 * (1 + scale1), shift1), Norm(self.norm2 * (1 + scale2), shift2)
        return Modulation(norm1, gate1, norm2, gate2)


class Trunk(nn.Module):
    """Embedding, conditioning and blocks of a backbone.

    `conditioning` "none" folds adaLN in at sigma = 0; with "sigma" callers pass sigma [B]. With `pad` the
    embedding has a multiple of ALIGNMENT rows, as many as the head has columns, so that a soft embedding is
    one product.
    """

    MATRICES = ("embedding",)

    def __init__(self, backbone: Backbone, conditioning: str = "none", pad: bool = False):
        super().__init__()
        if conditioning not in CONDITIONINGS:
            raise ValueError(f"conditioning must be one of {CONDITIONINGS}, not {conditioning!r}")
        with torch.no_grad():
            table = backbone.vocab_embed.embedding
            padding = -len(table) % ALIGNMENT if pad else 0
            self.embedding = nn.Parameter(F.pad(table, (0, 0, 0, padding)).clone())
            if conditioning == "none":
                c = backbone.condition(torch.zeros(1))
                self.blocks = nn.ModuleList(FoldedBlock(block, c) for block in backbone.blocks)
            else:
                self.sigma_map = copy.deepcopy(backbone.sigma_map)
                self.blocks = nn.ModuleList(AdaptiveBlock(block) for block in backbone.blocks)
        # The two halves of the backbone's tables are equal.
        self.register_buffer("cos", backbone.cos.chunk(2, dim=-1)[0].clone())
        self.register_buffer("sin", backbone.sin.chunk(2, dim=-1)[0].clone())

    def stored(self) -> Stored:
        return {"embedding": ("vocab_embed.embedding", False, None)}

    def condition(self, sigma: Tensor | None) -> Tensor | None:
        """Map sigma [B] to the conditioning vector [B, cond]; return None where adaLN is folded in."""
        return None if sigma is None else F.silu(self.sigma_map(sigma))

    def embed(self, tokens: Tensor) -> Tensor:
        """Map tokens [..] to embeddings [.., d] in float32."""
        return cast(F.embedding(tokens, self.embedding), torch.float32)

    def modulated(self, c: Tensor | None) -> Iterator[tuple[GraphBlock, Modulation]]:
        return ((block, block.modulation(c)) for block in self.blocks)

    def places(self, tokens: Tensor, length: Tensor) -> Places:
        """Return the places of canvases `tokens` [B, L], with padding at and beyond `length` [B]."""
        B, L = tokens.shape
        index = torch.arange(L, device=tokens.device)
        padding = index[None, :] >= length[:, None]
        return Places(
            cos=self.cos[:L].repeat(1, 2),
            sin=self.sin[:L].repeat(1, 2),
            bias=padding[:, None, None, :].float() * IMPOSSIBLE,
            table=(self.cos, self.sin),
            index=index[None].expand(B, L),
            length=length,
        )
