"""What a run on a GPU needs: tensors on one device, an end by the clock, and a rehearsal."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from didi import command
from didi.backbone import Backbone, BackboneConfig
from didi.command import Deadline, use_device
from didi.diffusion import corrupt
from didi.guidance import Discriminator
from didi.learn import inverse
from didi.learn.objectives import OBJECTIVES
from didi.learn.optim import Ema, Muon
from didi.learn.policy import entropy, group_advantage, jeffreys, log_odds_reward, policy_gradient_loss


FAKE = FakeTensorMode(shape_env=ShapeEnv())


@pytest.fixture
def cuda():
    """Make tensors without contents on CUDA, which need not exist; operators that mix devices raise."""
    use_device("cuda")
    try:
        with FAKE, torch.no_grad():
            yield
    finally:
        use_device("cpu")


class Noise:
    """Stands for NumPy's generator, whose arrays cannot become tensors without contents."""

    def random(self, shape: torch.Size | None = None, dtype: str = "float64") -> float | torch.Tensor:
        return 0.5 if shape is None else torch.rand(shape)


CONFIG = BackboneConfig(vocab_size=50, hidden=32, blocks=2, heads=2)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_keeps_to_one_device(cuda, name):
    objective = OBJECTIVES[name](0)
    model = objective.Model(CONFIG)
    loss = objective.train_loss(model, torch.randint(0, 40, (4, 16)), Noise())
    assert loss.device.type == "cuda"
    matrix = model.blocks[0].attn_out.weight
    matrix.grad = torch.ones_like(matrix)
    Muon([matrix], lr=0.01, weight_decay=0.01).step()
    Ema(model, 0.9).update(model, 3)


def test_distillation_keeps_to_one_device(cuda):
    z, uniform, mask_id = torch.randint(0, 40, (16, 8)), torch.rand(16, 8), CONFIG.mask_id
    discriminator = Discriminator(Backbone(CONFIG)).eval()
    discriminator.trunk = Backbone(CONFIG)  # a deep copy of a tensor without contents fits no other
    scores = discriminator(corrupt(z, torch.rand(16), uniform, mask_id))
    advantage = group_advantage(log_odds_reward(scores, z, mask_id, reach=3), 2)
    log_p, log_q = torch.log_softmax(torch.rand(2, 5, 50), dim=-1)
    loss = policy_gradient_loss(torch.rand(16, 8), advantage, torch.ones(16))
    assert (loss + jeffreys(log_p, log_q) + entropy(log_p)).device.type == "cuda"


def test_inverse_distillation_keeps_to_one_device(cuda, monkeypatch):
    def masked(student: Backbone, steps: int, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full(uniform.shape, CONFIG.mask_id), torch.zeros(len(uniform), dtype=torch.int64)

    monkeypatch.setattr(inverse, "own_states", masked)
    flags = ["--run", "unused", "--teacher", "unused", "--rows", "4", "--length", "8"]
    canvases = inverse.Canvases(Backbone(CONFIG), inverse.parse_args(flags))
    canvases.advance(canvases.z.masked_fill(canvases.shown(), 3))
    log_p, log_fake, log_teacher = torch.log_softmax(torch.rand(3, 5, 50), dim=-1)
    loss = inverse.inverse_loss(log_p, log_fake, log_teacher).sum()
    assert loss.device == canvases.z.device == canvases.uniform.device == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("minutes", "first", "seconds", "least", "most"),
    [
        (8, 0, lambda run: 2.0 if run < Deadline.WARM else 0.25, 450, 480),  # slow steps at the start
        (8, 30, lambda run: 0.25, 450, 480),  # resumed
        (8, 500, lambda run: 0.25, 450, 480),
        (8, -20, lambda run: 0.05 if run < 20 else 0.25, 450, 480),  # 20 steps of another kind first
        (1, 0, lambda run: 0.1 if run < 100 else 5, 60, 70),  # slower than planned
    ],
)
def test_a_run_ends_by_the_clock(monkeypatch, minutes, first, seconds, least, most):
    now = [0.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    deadline, steps, done = Deadline(minutes), 1_000_000, first
    while done < steps:
        steps, done = deadline.plan(done, steps), done + 1
        now[0] += seconds(done - 1 - first)
    assert least < now[0] < most


def test_the_whole_run_is_rehearsed(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("run", Path(__file__).parents[1] / "gpu" / "run.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "PIECE", 300_000)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)  # Ctrl-C stays pytest's
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path), "--rehearse"])
    script.main()
    assert (tmp_path / "samples.txt").read_text().count("steps:") == 16
    pieces = sorted(tmp_path.glob("weights.fp16.safetensors.*"))
    joined = tmp_path / "joined.safetensors"
    joined.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    assert len(pieces) == 3
    assert script.load_backbone(joined).config.blocks == 2
