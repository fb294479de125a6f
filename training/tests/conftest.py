import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from didi.backbone import Backbone, BackboneConfig

# The models of the tests are far too small for a second thread to pay.
torch.set_num_threads(1)


def randomised(model: nn.Module, scale: float = 0.2) -> nn.Module:
    """Moves every weight off its initial value, so that nothing is zero by initialisation."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model.eval()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A small denoiser with every weight random. Tests leave it as it is: a module shares it."""
    torch.manual_seed(3)
    return randomised(Backbone(BackboneConfig(vocab_size=61, hidden=32, blocks=3, heads=4, cond=16, context=64)))
