"""What a model is trained for: losses in nats a token, and their held-out values."""

import numpy as np
import torch
from torch import Tensor, nn

from ..backbone import Backbone
from ..causal import CausalLM, next_token_nats
from ..corpus import SHARES, Stream, evaluation_windows
from ..diffusion import low_discrepancy_times, nelbo


class MaskedDiffusion:
    """The NELBO of MDLM, an upper bound on the negative log-likelihood."""

    Model = Backbone

    def __init__(self, end_id: int):
        pass

    def train_loss(self, model: nn.Module, x: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the mean nats a token of x [B, L], with noise from `rng`."""
        t = low_discrepancy_times(len(x), rng.random())
        uniform = torch.as_tensor(rng.random(x.shape, dtype="float32"))
        return nelbo(model, x, t, uniform, model.config.mask_id).sum() / x.numel()

    def held_out(self, model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the nats [B] of each row of x [B, L], with noise from `generator`."""
        t = low_discrepancy_times(len(x), float(torch.rand((), generator=generator)))
        return nelbo(model, x, t, torch.rand(x.shape, generator=generator), model.config.mask_id)


class Causal:
    """The negative log-likelihood of each token given those before it, after an end of text."""

    Model = CausalLM

    def __init__(self, end_id: int):
        self.end_id = end_id

    def train_loss(self, model: nn.Module, x: Tensor, rng: np.random.Generator) -> Tensor:
        return next_token_nats(model, x, self.end_id).mean()

    def held_out(self, model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        return next_token_nats(model, x, self.end_id).sum(dim=1)


OBJECTIVES = {"masked-diffusion": MaskedDiffusion, "causal": Causal}


@torch.no_grad()
def evaluate(
    objective: MaskedDiffusion | Causal,
    model: nn.Module,
    streams: dict[str, Stream],
    per_source: int | None,
    batch: int = 32,
) -> dict[str, float]:
    """Return held-out nats a token for each source; the noise is fixed, so figures compare across steps."""
    results = {}
    for name, stream in streams.items():
        generator = torch.Generator(torch.get_default_device()).manual_seed(1)
        windows = torch.as_tensor(evaluation_windows(stream, model.config.context, per_source))
        total = sum(float(objective.held_out(model, x, generator).sum()) for x in windows.split(batch))
        results[name] = total / windows.numel()
    return results


def weighted(by_source: dict[str, float]) -> float:
    """Return the mean of figures by source, weighted as the training windows are."""
    return sum(SHARES[name] * value for name, value in by_source.items())
