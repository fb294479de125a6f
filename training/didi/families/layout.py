"""What a network of a family is made of: sizes, flags, and the parameters that follow from them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """Sizes and parts of a bidirectional transformer. Tuples have an entry for each block."""

    vocab_size: int  # rows of the checkpoint's embedding
    mask_id: int  # in the checkpoint
    hidden: int
    heads: int
    kv_heads: int  # each serves heads / kv_heads heads of queries
    head_dim: int
    inner: int  # width of the MLP
    context: int
    bases: tuple[float, ...]  # of the rotary angles; unused with learned positions
    windows: tuple[int | None, ...]  # positions that a block sees to each side; None: all
    activation: Literal["gelu", "gelu_tanh", "silu"]
    gated: bool  # the MLP multiplies the activation by a second projection
    norm: Literal["layer", "rms"]
    eps: float
    norm_bias: bool = False
    post_norm: bool = False  # norms after attention and MLP, as in BERT, not before
    first_norm: bool = True  # block 0 has a norm before attention
    embed_norm: bool = False
    learned_positions: bool = False  # an embedding of positions and one of the segment, not rotary angles
    qk_norm: bool = False  # RMS norm of each head's queries and keys
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    transform: bool = False  # a layer with activation and norm before the output layer
    transform_bias: bool = False
    tied: bool = False  # the output layer is the embedding
    head_bias: bool = False
    shift: bool = False  # the token at a position is predicted from the position before it

    @property
    def blocks(self) -> int:
        return len(self.windows)

    def slots(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of each parameter, matrices as [outputs, inputs].

        A parameter of a block is named blocks.N.NAME.
        """
        d, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        found: dict[str, tuple[int, ...]] = {"embedding": (self.vocab_size, d)}

        def norm(name: str) -> None:
            found[f"{name}.weight"] = (d,)
            if self.norm_bias:
                found[f"{name}.bias"] = (d,)

        def linear(name: str, outputs: int, inputs: int, bias: bool) -> None:
            found[f"{name}.weight"] = (outputs, inputs)
            if bias:
                found[f"{name}.bias"] = (outputs,)

        if self.learned_positions:
            found |= {"positions": (self.context, d), "segment": (1, d)}
        if self.embed_norm:
            norm("embed_norm")
        for i in range(self.blocks):
            block = f"blocks.{i}"
            if i > 0 or self.first_norm:
                norm(f"{block}.norm1")
            linear(f"{block}.q", q, d, self.qkv_bias)
            linear(f"{block}.k", kv, d, self.qkv_bias)
            linear(f"{block}.v", kv, d, self.qkv_bias)
            if self.qk_norm:
                found |= {f"{block}.{part}_norm.weight": (self.head_dim,) for part in "qk"}
            linear(f"{block}.out", d, q, self.out_bias)
            norm(f"{block}.norm2")
            linear(f"{block}.up", self.inner, d, self.mlp_bias)
            if self.gated:
                linear(f"{block}.gate", self.inner, d, self.mlp_bias)
            linear(f"{block}.down", d, self.inner, self.mlp_bias)
        if not self.post_norm:
            norm("final_norm")
        if self.transform:
            linear("transform", d, d, self.transform_bias)
            norm("transform_norm")
        if not self.tied:
            found["head.weight"] = (self.vocab_size, d)
        if self.head_bias:
            found["head.bias"] = (self.vocab_size,)
        return found
