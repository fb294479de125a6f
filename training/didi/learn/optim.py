"""What both training loops use: the Muon optimiser, the average of the weights, whole checkpoints."""

from pathlib import Path

import torch
from torch import Tensor, nn


def orthogonalised(stack: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Return about U V^T for every matrix U S V^T in `stack` [N, m, n]: singular values between 0.5 and 1.5.

    Newton-Schulz iteration with a quintic polynomial.
    """
    a, b, c = coefficients
    tall = stack.shape[1] > stack.shape[2]
    x = stack.transpose(1, 2) if tall else stack
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, iterating in `dtype` on all matrices of a
    shape at once.

    The library iterates in bfloat16, one matrix at a time, which was 65% of a training step on a processor
    without AVX-512. Rule and state are the same: each loads the other's checkpoints.
    """

    def __init__(self, params, lr: float, weight_decay: float, dtype: torch.dtype = torch.float32):
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = torch.stack([self._with_momentum(p, group["momentum"]) for p in parameters])
                newton_schulz = (group["ns_coefficients"], group["ns_steps"], group["eps"])
                updates = orthogonalised(updates.to(self.dtype), *newton_schulz).to(updates.dtype)
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _with_momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Update the running average of the gradient; return Nesterov's mixture of both."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(average, momentum)


class Ema:
    """Exponential moving average of the weights, which is what is evaluated and served."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            self.weights[key].lerp_(value, 1 - decay)


def load_checkpoint(path: Path) -> dict:
    """Return a checkpoint with its tensors on the default device."""
    return torch.load(path, map_location=torch.get_default_device(), weights_only=True)


def save_checkpoint(state: object, path: Path) -> None:
    """Write a checkpoint so that an interruption leaves the previous one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
