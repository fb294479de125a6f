"""The discriminator: how much a state looks like the teacher's rather than the student's."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from .backbone import Backbone


class Discriminator(nn.Module):
    """The teacher's trunk with a spectrally normalised scalar head at each position, and no final norm.

    Scores are log-odds that a state is the teacher's rather than the student's.
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
        """tokens [B, L] -> scores [B, L]."""
        return self.scores(self.trunk.vocab_embed(tokens))

    def scores(self, x: Tensor) -> Tensor:
        """Scores [B, L] of a canvas of embeddings x [B, L, d], which may be soft."""
        hidden = self.trunk.transform(x, self.trunk.condition(torch.zeros(1)))
        return self.main(hidden)[..., 0].float()


def published_state(discriminator: Discriminator) -> dict[str, Tensor]:
    """Its tensors under the published names: the trunk without an output layer, the head in its place."""
    trunk = {
        name: tensor
        for name, tensor in discriminator.trunk.state_dict().items()
        if not name.startswith("output_layer.")
    }
    return trunk | {f"output_layer.main.{name}": tensor for name, tensor in discriminator.main.state_dict().items()}


def load_published_state(discriminator: Discriminator, state: dict[str, Tensor]) -> None:
    """Copies tensors under the published names into it, in place. Raises KeyError if one is missing."""
    with torch.no_grad():
        for name, tensor in published_state(discriminator).items():
            tensor.copy_(state[name])
