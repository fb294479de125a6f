"""Training runs, resumed and whole."""

import csv
import dataclasses
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from conftest import TOKENIZER
from didi import train as training
from didi.backbone import Backbone


@pytest.fixture(scope="module")
def run_training():
    """Train a tiny model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", lambda *_: None)  # Ctrl-C stays pytest's

        def run(folder: Path, *flags: str) -> None:
            sizes = [
                "--hidden",
                "32",
                "--blocks",
                "2",
                "--heads",
                "2",
                "--cond",
                "16",
                "--context",
                "32",
                "--batch-tokens",
                "256",
            ]
            argv = [
                "--run",
                str(folder),
                "--tokenizer",
                str(TOKENIZER),
                *sizes,
                "--warmup",
                "2",
                "--validate-every",
                "4",
            ]
            patch.setattr(sys, "argv", ["train", *argv, *flags])
            training.train(training.parse_args())

        yield run


@pytest.mark.parametrize("objective", ["masked-diffusion", "causal"])
def test_a_resumed_run_follows_the_same_curve(run_training, tmp_path, objective):
    flags = ["--objective", objective, "--steps", "12", "--dropout", "0.1"]
    run_training(tmp_path / "whole", *flags)
    run_training(tmp_path / "parts", *flags)
    # Back to the state in which the rate began to fall, then on to the end.
    stable = str(tmp_path / "parts" / "stable.pt")
    run_training(tmp_path / "parts", *flags, "--resume", "--resume-from", stable)
    whole = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    parts = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert whole["step"] == parts["step"] == 12
    for key, value in whole["ema"].items():
        assert torch.equal(value, parts["ema"][key]), key
    curves = []
    for name in ("whole", "parts"):
        with (tmp_path / name / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        curves.append([(row["step"], row["tokens"], row["validation_nats"]) for row in rows])
    assert curves[0] == curves[1]
    assert [int(step) for step, *_ in curves[0]] == [4, 8, 12]
    best = torch.load(tmp_path / "whole" / "best.pt", weights_only=True)["step"]
    assert (str(best)) == min(curves[0], key=lambda row: float(row[2]))[0]


compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


@pytest.mark.parametrize(
    "other", [["--accumulate", "3"], pytest.param(["--compile"], marks=compiler)], ids=["parts", "compiled"]
)
def test_parts_of_a_batch_and_compiled_blocks_make_the_same_update(
    run_training, tmp_path, other, monkeypatch
):
    compiled = []
    compile_module = torch.nn.Module.compile

    def compile_and_note(module, **options):
        compiled.append(module)
        compile_module(module, **options)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_and_note)
    flags = ["--objective", "causal", "--steps", "4", "--no-bf16"]
    weights = []
    for name, added in (("plain", []), ("other", other)):
        run_training(tmp_path / name, *flags, *added)
        weights.append(torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["ema"])
    assert len(compiled) == (2 if other == ["--compile"] else 0)  # each block of one run
    # Rounding turns the sign of some gradients near zero, and with it Adam's first updates.
    changed = torch.cat([(value - weights[1][key]).abs().flatten() for key, value in weights[0].items()])
    assert changed.mean() < 3e-5


@torch.no_grad()
def test_a_grown_model_computes_the_same_function(backbone):
    config = dataclasses.replace(backbone.config, blocks=2 * backbone.config.blocks)
    larger = Backbone(config)
    larger.load_state_dict(training.grown(backbone.state_dict(), config.hidden))
    tokens = torch.arange(24).view(2, 12)
    assert torch.allclose(larger(tokens), backbone(tokens), atol=1e-6)
