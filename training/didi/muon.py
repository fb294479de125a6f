"""Muon with its Newton-Schulz iteration in float32, matrices of one shape at a time.

`torch.optim.Muon` does that iteration in bfloat16, one matrix at a time; where a processor has no
such products (no AVX-512) it was 65% of a training step. The rule is the same, and so is the state:
each loads the other's checkpoints.
"""

import torch
from torch import Tensor


def orthogonalised(stack: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """U V^T, roughly, of every matrix U S V^T in `stack` [N, m, n]: singular values between 0.5 and 1.5."""
    a, b, c = coefficients
    tall = stack.shape[1] > stack.shape[2]
    x = stack.transpose(1, 2) if tall else stack
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Muon):
    """As `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`: momentum, then an orthogonal update."""

    def __init__(self, params, lr: float, weight_decay: float):
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = torch.stack([self._with_momentum(p, group["momentum"]) for p in parameters])
                updates = orthogonalised(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, updates):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _with_momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov's update: the gradient with the running average, which takes it in."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(average, momentum)
