"""What `didi.train` can train: the masked-diffusion denoiser, or a causal language model."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .backbone import Backbone, BackboneConfig
from .causal import CausalLM, next_token_nats
from .diffusion import low_discrepancy_times, nelbo


class Objective(Protocol):
    """How a kind of model is built, trained and measured. Losses are in nats."""

    def build(self, config: BackboneConfig) -> nn.Module: ...

    def train_loss(self, model: nn.Module, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Mean nats a token of x [B, L], with noise from `rng`."""
        ...

    def held_out(self, model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nats of each row of x [B, L], with noise from `generator`: [B]."""
        ...


class MaskedDiffusion:
    """The NELBO of MDLM; an upper bound on the negative log-likelihood."""

    def __init__(self, end_id: int):
        pass

    def build(self, config: BackboneConfig) -> Backbone:
        return Backbone(config)

    def train_loss(self, model: nn.Module, x: Tensor, rng: np.random.Generator) -> Tensor:
        t = low_discrepancy_times(len(x), rng.random())
        uniform = torch.from_numpy(rng.random(x.shape, dtype="float32"))
        return nelbo(model, x, t, uniform, model.config.mask_id).sum() / x.numel()

    def held_out(self, model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        t = low_discrepancy_times(len(x), float(torch.rand((), generator=generator)))
        return nelbo(model, x, t, torch.rand(x.shape, generator=generator), model.config.mask_id)


class Causal:
    """The negative log-likelihood of each token given those before it; a window starts after an end of text."""

    def __init__(self, end_id: int):
        self.end_id = end_id

    def build(self, config: BackboneConfig) -> CausalLM:
        return CausalLM(config)

    def train_loss(self, model: nn.Module, x: Tensor, rng: np.random.Generator) -> Tensor:
        return next_token_nats(model, x, self.end_id).mean()

    def held_out(self, model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        return next_token_nats(model, x, self.end_id).sum(dim=1)


OBJECTIVES = {"masked-diffusion": MaskedDiffusion, "causal": Causal}
