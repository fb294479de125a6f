"""Muon against the library's, which iterates in bfloat16."""

import copy

import pytest
import torch
from torch import Tensor

from didi.learn.optim import Muon, orthogonalised

SHAPES = [(24, 8), (8, 24), (8, 24), (8, 8)]
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def parameters_of(seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(shape, requires_grad=True) for shape in SHAPES]


def take_steps(optimizer: torch.optim.Optimizer, parameters: list[Tensor], count: int, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in range(count):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()


def library_muon(parameters: list[Tensor]) -> torch.optim.Muon:
    return torch.optim.Muon(parameters, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")


def moved(parameters: list[Tensor]) -> list[Tensor]:
    """Return the change of each parameter since the start."""
    return [now.detach() - before.detach() for now, before in zip(parameters, parameters_of(0))]


def assert_alike(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Compare within the rounding of the library's bfloat16."""
    for a, b in zip(ours, theirs):
        assert (a - b).norm() < 0.02 * b.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_updates_are_the_librarys(dtype):
    ours, theirs = parameters_of(0), parameters_of(0)
    take_steps(Muon(ours, lr=0.02, weight_decay=0.1, dtype=dtype), ours, 5, seed=1)
    take_steps(library_muon(theirs), theirs, 5, seed=1)
    assert_alike(moved(ours), moved(theirs))


def test_the_librarys_state_is_taken_up():
    ours, theirs = parameters_of(0), parameters_of(0)
    before = library_muon(theirs)
    take_steps(before, theirs, 3, seed=1)
    take_steps(library_muon(ours), ours, 3, seed=1)
    after = Muon(ours, lr=0.02, weight_decay=0.1)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    take_steps(after, ours, 3, seed=2)
    take_steps(before, theirs, 3, seed=2)
    assert_alike(moved(ours), moved(theirs))


def test_singular_values_come_near_one_whatever_they_were():
    torch.manual_seed(0)
    stack = torch.randn(3, 16, 40) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    values = torch.linalg.svdvals(orthogonalised(stack, COEFFICIENTS, 5, 1e-7))
    assert values.min() > 0.5 and values.max() < 1.5
