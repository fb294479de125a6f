"""The denoiser: the diffusion transformer of the published checkpoint, with its sizes as parameters.

A bidirectional transformer over the canvas: adaptive layer norm (adaLN) from the noise level sigma in every
block, rotary positions, tanh-GELU MLP, untied output layer (DiDi-Instruct, arXiv 2509.25035, section 5).
Modules and parameters have the names of the published checkpoint, so that its tensors load without renaming.

Our models are trained with sigma fixed at 0. Every adaLN output is then a constant, which the export folds
into the weights (`graphs/blocks.py`).
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes of a network. `vocab_size` counts `[MASK]`, which is the last id."""

    vocab_size: int
    hidden: int = 192
    blocks: int = 6
    heads: int = 6
    cond: int = 64
    context: int = 256
    mlp_ratio: int = 4

    def to_dict(self) -> dict:
        return asdict(self)

    @property
    def mask_id(self) -> int:
        return self.vocab_size - 1


def rotary_tables(length: int, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary angles, each [length, head_dim] (two equal halves)."""
    inverse_frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), inverse_frequency)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().float(), angles.sin().float()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [B, H, L, D] by position; element i is paired with element i + D/2 (not interleaved)."""
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + rotated * sin


def attention(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
    """Return attention over [B, H, L, D]; `keep` (broadcast over [B, H, L, L]) is false at pairs to leave
    out.

    Written out on the CPU because the backward pass of PyTorch's fused kernel is four times slower there in
    bfloat16.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if keep is not None:
        scores = scores.masked_fill(~keep, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1) @ v


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply adaLN: x [B, L, d] times (1 + scale) plus shift, both broadcast over positions."""
    return x * (1 + scale) + shift


class LayerNorm(nn.Module):
    """Layer norm over the last axis with a weight and no bias (eps 1e-5)."""

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.weight)


class Embedding(nn.Module):
    """Token embedding [V, d]."""

    def __init__(self, vocab_size: int, dim: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(vocab_size, dim) * 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.embedding)


class SigmaEmbedder(nn.Module):
    """Map the noise level sigma [B] to [B, cond]: sinusoids of width 256, then an MLP."""

    WIDTH = 256

    def __init__(self, cond: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.WIDTH, cond), nn.SiLU(), nn.Linear(cond, cond))

    def forward(self, sigma: Tensor) -> Tensor:
        half = self.WIDTH // 2
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32) / half)
        angles = sigma[:, None].float() * frequencies[None].to(sigma.device)
        return self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1))


class BlockLayers(nn.Module):
    """Norms, attention and MLP of a transformer block; subclasses join them."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        d = config.hidden
        self.heads = config.heads
        self.norm1 = LayerNorm(d)
        self.attn_qkv = nn.Linear(d, 3 * d, bias=False)
        self.attn_out = nn.Linear(d, d, bias=False)
        self.norm2 = LayerNorm(d)
        self.mlp = nn.Sequential(
            nn.Linear(d, config.mlp_ratio * d),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.mlp_ratio * d, d),
        )
        # Applied to what attention and MLP add to the residual stream; the trainer sets its rate.
        self.dropout = nn.Dropout(0.0)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor, keep: Tensor | None) -> Tensor:
        """Return multi-head attention over normed x [B, L, d], output projection included."""
        B, L, d = x.shape
        q, k, v = self.attn_qkv(x).view(B, L, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = attention(apply_rotary(q, cos, sin), apply_rotary(k, cos, sin), v, keep)
        return self.attn_out(mixed.transpose(1, 2).reshape(B, L, d))


class Block(BlockLayers):
    """One transformer block with adaLN: attention, then the MLP, each behind a learned gate."""

    def __init__(self, config: BackboneConfig):
        super().__init__(config)
        self.adaLN_modulation = nn.Linear(config.cond, 6 * config.hidden)
        nn.init.zeros_(self.adaLN_modulation.weight)
        nn.init.zeros_(self.adaLN_modulation.bias)

    def forward(self, x: Tensor, c: Tensor, cos: Tensor, sin: Tensor, keep: Tensor | None) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c)[:, None].chunk(6, dim=2)
        attended = self.attend(modulate(self.norm1(x), shift_a, scale_a), cos, sin, keep)
        x = x + gate_a * self.dropout(attended)
        return x + gate_m * self.dropout(self.mlp(modulate(self.norm2(x), shift_m, scale_m)))


class OutputLayer(nn.Module):
    """Final adaLN and the untied projection to logits [.., V]."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.norm_final = LayerNorm(config.hidden)
        self.linear = nn.Linear(config.hidden, config.vocab_size)
        self.adaLN_modulation = nn.Linear(config.cond, 2 * config.hidden)
        for layer in (self.linear, self.adaLN_modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, c: Tensor, where: Tensor | None) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=2)
        x = modulate(self.norm_final(x), shift, scale)
        return self.linear(x if where is None else x[where])


class Backbone(nn.Module):
    """The denoiser p(x0 | z_t): tokens [B, L] -> logits over the vocabulary.

    >>> Backbone(BackboneConfig(vocab_size=50))(torch.zeros(2, 8, dtype=torch.int64)).shape
    torch.Size([2, 8, 50])
    """

    def __init__(self, config: BackboneConfig):
        super().__init__()
        if config.hidden % config.heads or (config.hidden // config.heads) % 2:
            raise ValueError(f"hidden ({config.hidden}) must be an even multiple of heads ({config.heads})")
        self.config = config
        self.vocab_embed = Embedding(config.vocab_size, config.hidden)
        self.sigma_map = SigmaEmbedder(config.cond)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.output_layer = OutputLayer(config)
        cos, sin = rotary_tables(config.context, config.hidden // config.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def condition(self, sigma: Tensor) -> Tensor:
        """Map sigma [B] (or [1], shared by the batch) to the conditioning vector [B, cond]."""
        return F.silu(self.sigma_map(sigma))

    def transform(self, x: Tensor, c: Tensor, length: Tensor | None = None) -> Tensor:
        """Run the blocks on embeddings x [B, L, d]; return the last output [B, L, d].

        Raise ValueError if L exceeds the context.
        """
        L = x.shape[1]
        if L > self.config.context:
            raise ValueError(f"canvas of {L} tokens is longer than the context of {self.config.context}")
        keep = None
        if length is not None:
            keep = (torch.arange(L, device=x.device)[None] < length[:, None])[:, None, None, :]
        for block in self.blocks:
            x = block(x, c, self.cos[:L], self.sin[:L], keep)
        return x

    def forward(
        self,
        tokens: Tensor,
        sigma: Tensor | None = None,
        length: Tensor | None = None,
        where: Tensor | None = None,
    ) -> Tensor:
        """Return logits at every position [B, L, V], or only where the mask `where` [B, L] is true [P, V].

        `sigma` [B] defaults to 0 (our models). Positions at and beyond `length` [B] are padding, which no
        position attends to. The logits are raw: `diffusion.subs` applies SUBS.
        """
        c = self.condition(torch.zeros(1, device=tokens.device) if sigma is None else sigma)
        return self.output_layer(self.transform(self.vocab_embed(tokens), c, length), c, where)

    @torch.no_grad()
    def sharpen(self, temperature: float) -> "Backbone":
        """Divide the logits by `temperature`, in the weights, and return the model."""
        for parameter in self.output_layer.linear.parameters():
            parameter.div_(temperature)
        return self

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def read_weights(path: Path) -> tuple[BackboneConfig, dict[str, Tensor]]:
    """Return the sizes and the float32 tensors of a .safetensors file that `write_weights` wrote."""
    with safe_open(path, "pt") as file:
        config = BackboneConfig(**json.loads(file.metadata()["config"]))
        return config, {name: file.get_tensor(name).float() for name in file.keys()}


def read_average(path: Path) -> tuple[BackboneConfig, dict[str, Tensor]]:
    """Return the sizes and the averaged weights of a training run's checkpoint.pt."""
    state = torch.load(path, map_location=torch.get_default_device(), weights_only=True)
    return BackboneConfig(**state["config"]), state["ema"]


def write_weights(path: Path, config: BackboneConfig, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Write tensors in `dtype` to a .safetensors file, with the network's sizes in its metadata."""
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    save_file(weights, path, {"config": json.dumps(config.to_dict())})
    path.chmod(0o644)


def save_backbone(backbone: Backbone, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the weights that graphs, further training and distillation start from."""
    write_weights(path, backbone.config, backbone.state_dict(), dtype)


def load_backbone(path: Path) -> Backbone:
    """Load the averaged weights of a checkpoint (.pt) or a weight file (.safetensors), in evaluation mode."""
    config, weights = read_weights(path) if path.suffix == ".safetensors" else read_average(path)
    model = Backbone(config)
    model.load_state_dict(weights)
    return model.eval()
