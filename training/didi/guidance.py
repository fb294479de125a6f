"""The discriminator, and RGAS: sampling guided by its scores (arXiv 2509.25035, section 4.3).

The sampler here uses autograd and torch's generator: for measurements in bulk, and for tests to compare the
exported graphs with.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from .backbone import Backbone, BackboneConfig, read_weights, write_weights
from .diffusion import categorical, grid, stay_probability, subs


class Discriminator(nn.Module):
    """The teacher's trunk with a spectrally normalised scalar head at each position, and no final norm.

    A score is the log-odds that a state is the teacher's rather than the student's.
    """

    def __init__(self, teacher: Backbone, trainable_blocks: int = 4):
        super().__init__()
        self.trunk = copy.deepcopy(teacher)
        d = teacher.config.hidden
        self.main = nn.Sequential(spectral_norm(nn.Linear(d, d)), nn.SiLU(), spectral_norm(nn.Linear(d, 1)))
        self.trunk.requires_grad_(False)
        for block in list(self.trunk.blocks)[-trainable_blocks:]:
            block.requires_grad_(True)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores [B, L] of tokens [B, L]."""
        return self.scores(self.trunk.vocab_embed(tokens))

    def scores(self, x: Tensor) -> Tensor:
        """Return the scores [B, L] of a canvas of embeddings x [B, L, d], which may be mixtures of tokens."""
        hidden = self.trunk.transform(x, self.trunk.condition(torch.zeros(1)))
        return self.main(hidden)[..., 0].float()


def published_state(discriminator: Discriminator) -> dict[str, Tensor]:
    """Return its tensors under the published names: the trunk, with the head in place of the output layer."""
    trunk = discriminator.trunk.state_dict()
    trunk = {name: tensor for name, tensor in trunk.items() if not name.startswith("output_layer.")}
    head = discriminator.main.state_dict()
    return trunk | {f"output_layer.main.{name}": tensor for name, tensor in head.items()}


def load_published_state(discriminator: Discriminator, state: dict[str, Tensor]) -> None:
    """Copy tensors under the published names into the discriminator. Raise KeyError if one is missing."""
    with torch.no_grad():
        for name, tensor in published_state(discriminator).items():
            tensor.copy_(state[name])


def save_discriminator(discriminator: Discriminator, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write its weights under the published names."""
    write_weights(path, discriminator.trunk.config, published_state(discriminator), dtype)


def load_discriminator(path: Path) -> Discriminator:
    """Load a weight file (.safetensors) or a distillation's checkpoint (.pt), in evaluation mode."""
    if path.suffix == ".safetensors":
        config, weights = read_weights(path)
        discriminator = Discriminator(Backbone(config))
        load_published_state(discriminator, weights)
    else:
        state = torch.load(path, map_location=torch.get_default_device(), weights_only=True)
        discriminator = Discriminator(Backbone(BackboneConfig(**state["config"])))
        discriminator.load_state_dict(state["discriminator"])
    return discriminator.eval()


def weight_files(source: Path) -> tuple[Path, Path | None]:
    """Return the files of backbone and discriminator (or None) of a model folder or a checkpoint."""
    if source.is_dir():
        discriminator = source / "discriminator.fp16.safetensors"
        return source / "weights.fp16.safetensors", discriminator if discriminator.exists() else None
    state = torch.load(source, map_location="cpu", weights_only=True)
    return source, source if "discriminator" in state else None


@dataclass(frozen=True)
class Guidance:
    """Settings of RGAS; the defaults are the published ones.

    Early steps tilt by scale_start..scale_end times the reward's gradient. Late steps, a share of
    rerank_ratio, draw `candidates` and choose one by reward. All draws are at `temperature`.
    """

    candidates: int = 4
    scale_start: float = 30.0
    scale_end: float = 40.0
    rerank_ratio: float = 0.5
    temperature: float = 1.0

    def tilted_steps(self, steps: int) -> int:
        """Return how many of `steps` tilt; the others re-rank."""
        return int(steps * (1 - self.rerank_ratio))

    def scale(self, step: int, steps: int) -> float:
        """Return the strength of the tilt at a step, linear over the tilted steps."""
        last = max(1, self.tilted_steps(steps) - 1)
        return self.scale_start + (self.scale_end - self.scale_start) * step / last


def tilted(
    log_p: Tensor, z: Tensor, discriminator: Discriminator, scale: float, clip: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return log_softmax(log p + scale g) [P, V] at the masked positions of z [B, L], and the reward r [B].

    log_p [P, V] is the student's. r is the sum of scores over the masked positions of the soft canvas, in
    which a masked position is softmax(log p) @ E; g = dr/d log p, clipped to +-clip.
    """
    mask_id = log_p.shape[1] - 1
    masked = z == mask_id
    embedding = discriminator.trunk.vocab_embed.embedding
    with torch.enable_grad():
        leaf = log_p.detach().requires_grad_(True)
        soft = torch.softmax(leaf, dim=-1) @ embedding.detach()
        canvas = embedding.detach()[z].masked_scatter(masked[..., None], soft.float())
        reward = (discriminator.scores(canvas) * masked).sum(-1)
        (gradient,) = torch.autograd.grad(reward.sum(), leaf)
    return torch.log_softmax(log_p + scale * gradient.clamp(-clip, clip), dim=-1), reward.detach()


def rerank(candidates: Tensor, discriminator: Discriminator) -> Tensor:
    """Choose one of candidates [B, M, L] a row with probability softmax(reward of the canvas): [B, L]."""
    B, M, L = candidates.shape
    reward = discriminator(candidates.reshape(B * M, L)).sum(-1).view(B, M)
    chosen = categorical(torch.log_softmax(reward, dim=-1))
    return candidates[torch.arange(B), chosen]


def reveal(z: Tensor, log_p: Tensor, stay: float) -> Tensor:
    """Fill each mask of z [B, L] from log_p [P, V] with probability 1 - stay."""
    masked = z == log_p.shape[1] - 1
    shown = torch.rand(len(log_p)) >= stay
    tokens = z[masked]
    tokens[shown] = categorical(log_p[shown])
    return z.masked_scatter(masked, tokens)


@torch.no_grad()
def sample_guided(
    student: Backbone, discriminator: Discriminator, guidance: Guidance, z: Tensor, steps: int
) -> Tensor:
    """Fill the masks of z [B, L] in `steps` guided steps and, if masks remain, one plain clean-up pass."""
    mask_id = student.config.mask_id
    z = z.clone()
    times = grid(steps)
    for step in range(steps + 1):
        masked = z == mask_id
        if not masked.any():
            break
        stay = stay_probability(times, step)
        log_p = subs(student(z, where=masked), mask_id)
        if step == steps:
            z = reveal(z, log_p / guidance.temperature, stay)
        elif step < guidance.tilted_steps(steps):
            log_p, _ = tilted(log_p, z, discriminator, guidance.scale(step, steps))
            z = reveal(z, log_p / guidance.temperature, stay)
        else:
            log_p = log_p / guidance.temperature
            candidates = [reveal(z, log_p, stay) for _ in range(guidance.candidates)]
            z = rerank(torch.stack(candidates, dim=1), discriminator)
    return z
