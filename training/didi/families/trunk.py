"""The graph `denoise` of any family, built from the same parts.

Weights are inputs of the traced module, under the names of `Layout.slots`; the export turns them into
initializers with external data (store.py), so that no weight is in memory while a graph is built. Matrices
multiply from the right, in their own type: float32, float16, or int8 with a scale for each column and each
position. ONNX Runtime would convert them at every step, not once, if there are more than some gigabytes.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import apply_rotary, rotary_tables
from ..graphs.blocks import ALIGNMENT, IMPOSSIBLE, Places, cast, operator, product
from ..graphs.denoise import Denoise, draws_of
from .layout import Layout

Weights = Mapping[str, Tensor]

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def integers(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [.., d] as uint8 around 128, and the scale [.., 1] of each position."""
    largest = x.abs().amax(dim=-1, keepdim=True)
    scale = torch.where(largest > 0, largest / 127, 1.0)
    return ((x / scale).round() + 128).to(torch.uint8), scale


def integer_product(x: Tensor, scale: Tensor, matrix: Tensor, by_column: Tensor) -> Tensor:
    """Return the product of what `integers` returns and an int8 matrix with a scale for each column."""
    if torch.compiler.is_exporting():
        one, zero = torch.ones(()), torch.full((), 128, dtype=torch.uint8)
        shape = (*x.shape[:-1], matrix.shape[1])
        inputs = (x, matrix, one, by_column, zero)
        name = "com.microsoft::MatMulIntegerToFloat"
        made = torch.onnx.ops.symbolic(name, inputs, {}, dtype=torch.float32, shape=shape, version=1)
    else:
        made = ((x.int() - 128) @ matrix.int()).float() * by_column
    return made * scale


class FamilyDenoise(nn.Module):
    """The module behind `denoise`: inputs and outputs are those of graphs.denoise.Denoise, after `weights`.

    `vocab_size` counts the ids of the model folder; the mask is the last. `compute` is the type of products
    by float matrices; float32 activations, norms and softmax in any case.
    """

    inputs = Denoise.INPUTS
    OUTPUTS = Denoise.OUTPUTS

    def __init__(self, layout: Layout, vocab_size: int, compute: torch.dtype = torch.float32):
        super().__init__()
        self.layout, self.compute = layout, compute
        self.fused = compute == torch.float32
        if not layout.learned_positions:
            for base in set(layout.bases):
                cos, sin = rotary_tables(layout.context, layout.head_dim, base)
                self.register_buffer(f"cos{base:g}".replace(".", "_"), cos[:, : layout.head_dim // 2].clone())
                self.register_buffer(f"sin{base:g}".replace(".", "_"), sin[:, : layout.head_dim // 2].clone())
        ids = torch.arange(vocab_size + -vocab_size % ALIGNMENT)
        self.register_buffer("impossible", torch.where(ids < vocab_size - 1, 0.0, IMPOSSIBLE))

    def linear(self, w: Weights, names: Sequence[str], x: Tensor) -> list[Tensor]:
        """Return x [.., d] times each of the matrices `names`, plus its bias if it has one."""
        if w[f"{names[0]}.weight"].dtype == torch.int8:
            quantised = integers(x)
            made = [integer_product(*quantised, w[f"{name}.weight"], w[f"{name}.scale"]) for name in names]
        else:
            made = [product(x, w[f"{name}.weight"]) for name in names]
        return [y + w[f"{name}.bias"] if f"{name}.bias" in w else y for name, y in zip(names, made)]

    def norm(self, w: Weights, name: str, x: Tensor, kind: str | None = None) -> Tensor:
        weight, eps = w[f"{name}.weight"], self.layout.eps
        if (kind or self.layout.norm) == "layer":
            return F.layer_norm(x, weight.shape, weight, w.get(f"{name}.bias"), eps)
        if torch.compiler.is_exporting() and self.fused:
            return operator("RMSNormalization", (x, weight), {"axis": -1, "epsilon": eps}, like=x)
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight

    def places(self, tokens: Tensor, length: Tensor, block: int) -> Places:
        """Return positions and padding of canvases [B, L] as a block sees them."""
        B, L = tokens.shape
        index = torch.arange(L, device=tokens.device)
        seen = index[None, :] < length[:, None]
        bias = torch.where(seen, 0.0, IMPOSSIBLE)[:, None, None, :]
        window = self.layout.windows[block]
        if window is not None:
            near = (index[None, :] - index[:, None]).abs() <= window
            bias = bias + torch.where(near, 0.0, IMPOSSIBLE)[None, None]
        base = f"{self.layout.bases[block]:g}".replace(".", "_")
        rotary = not self.layout.learned_positions
        table = (getattr(self, f"cos{base}"), getattr(self, f"sin{base}")) if rotary else None
        cos, sin = (part[:L].repeat(1, 2) for part in table) if rotary else (None, None)
        return Places(cos, sin, bias, table, index[None].expand(B, L), length)

    def embed(self, w: Weights, tokens: Tensor) -> Tensor:
        """Map tokens [B, L] to embeddings [B, L, d] in float32."""
        x = cast(F.embedding(tokens, w["embedding"]), torch.float32)
        if self.layout.learned_positions:
            positions = cast(w["positions"], torch.float32)[: tokens.shape[1]]
            x = x + positions + cast(w["segment"], torch.float32)[0]
        return self.norm(w, "embed_norm", x) if self.layout.embed_norm else x

    def by_head(self, x: Tensor, heads: int) -> Tensor:
        return x.view(*x.shape[:2], heads, self.layout.head_dim)

    def attend(self, w: Weights, block: int, x: Tensor, at: Places) -> Tensor:
        """Map normed x [B, L, d] to the heads' mixtures [B, L, H * D], before the output projection."""
        layout, name = self.layout, f"blocks.{block}"
        q, k, v = self.linear(w, [f"{name}.q", f"{name}.k", f"{name}.v"], x)
        if layout.qk_norm:
            q = self.norm(w, f"{name}.q_norm", self.by_head(q, layout.heads), "rms").flatten(2)
            k = self.norm(w, f"{name}.k_norm", self.by_head(k, layout.kv_heads), "rms").flatten(2)
        scale = layout.head_dim**-0.5
        if torch.compiler.is_exporting() and self.fused:
            if at.table is not None:
                rotated = {"num_heads": layout.heads, "interleaved": 0}
                q = operator("RotaryEmbedding", (q, *at.table, at.index), rotated, like=q)
                rotated = rotated | {"num_heads": layout.kv_heads}
                k = operator("RotaryEmbedding", (k, *at.table, at.index), rotated, like=k)
            heads = {"q_num_heads": layout.heads, "kv_num_heads": layout.kv_heads, "scale": scale}
            local = layout.windows[block] is not None
            rest = (at.bias, None, None) if local else (None, None, None, at.length)
            return operator("Attention", (q, k, v, *rest), heads, like=q)
        q, k, v = (
            self.by_head(part, n).transpose(1, 2)
            for part, n in ((q, layout.heads), (k, layout.kv_heads), (v, layout.kv_heads))
        )
        if at.cos is not None:
            q, k = apply_rotary(q, at.cos, at.sin), apply_rotary(k, at.cos, at.sin)
        k, v = (part.repeat_interleave(layout.heads // layout.kv_heads, dim=1) for part in (k, v))
        half = self.compute
        weights = torch.softmax(product(q * scale, cast(k.transpose(-1, -2), half)) + at.bias, dim=-1)
        return product(weights, cast(v, half)).transpose(1, 2).flatten(2)

    def mlp(self, w: Weights, block: int, x: Tensor) -> Tensor:
        name, act = f"blocks.{block}", ACTIVATIONS[self.layout.activation]
        if self.layout.gated:
            gate, up = self.linear(w, [f"{name}.gate", f"{name}.up"], x)
            hidden = act(gate) * up
        else:
            hidden = act(self.linear(w, [f"{name}.up"], x)[0])
        return self.linear(w, [f"{name}.down"], hidden)[0]

    def finish(self, w: Weights, block: int, x: Tensor, mixed: Tensor) -> Tensor:
        """Apply output projection and MLP; position-wise, so any leading shape will do."""
        name = f"blocks.{block}"
        x = x + self.linear(w, [f"{name}.out"], mixed)[0]
        if self.layout.post_norm:
            x = self.norm(w, f"{name}.norm1", x)
            return self.norm(w, f"{name}.norm2", x + self.mlp(w, block, x))
        return x + self.mlp(w, block, self.norm(w, f"{name}.norm2", x))

    def logits(self, w: Weights, tokens: Tensor, length: Tensor, picks: Tensor) -> Tensor:
        """Return logits [P, V padded] at the picks; the mask and the padding are IMPOSSIBLE."""
        layout = self.layout
        x = self.embed(w, tokens)
        row, position = picks[:, 0], picks[:, 1]
        if layout.shift:
            position = (position - 1).clamp(min=0)
        for block in range(layout.blocks):
            plain = layout.post_norm or (block == 0 and not layout.first_norm)
            normed = x if plain else self.norm(w, f"blocks.{block}.norm1", x)
            mixed = self.attend(w, block, normed, self.places(tokens, length, block))
            if block == layout.blocks - 1:
                x, mixed = x[row, position], mixed[row, position]
            x = self.finish(w, block, x, mixed)
        if not layout.post_norm:
            x = self.norm(w, "final_norm", x)
        if layout.transform:
            (x,) = self.linear(w, ["transform"], x)
            x = self.norm(w, "transform_norm", ACTIVATIONS[layout.activation](x))
        bias = self.impossible + w["head.bias"] if layout.head_bias else self.impossible
        return product(x, w["head.weight"]) + bias

    def forward(
        self,
        weights: dict[str, Tensor],
        tokens: Tensor,
        length: Tensor,
        picks: Tensor,
        draws: Tensor,
        uniform: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        alternatives: Tensor,
    ) -> tuple[Tensor, ...]:
        logits = self.logits(weights, tokens, length, picks)
        return draws_of(logits, draws, uniform, temperature, top_k, top_p, alternatives)
