import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from didi.backbone import Backbone, BackboneConfig


@pytest.fixture
def backbone() -> Backbone:
    """A small denoiser with every weight random, so that nothing is zero by initialisation."""
    torch.manual_seed(3)
    model = Backbone(BackboneConfig(vocab_size=61, hidden=32, blocks=3, heads=4, cond=16, context=64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()
