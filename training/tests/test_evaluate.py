"""The commands around the distillation, end to end on models too small to be any good."""

import csv
import json
import re
import shutil
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import randomised
from didi import distill as distillation
from didi import distill_curves
from didi import evaluate as evaluation
from didi import export as exporting
from didi.backbone import Backbone, BackboneConfig
from didi.causal import CausalLM
from didi.causal_export import neox_config, to_neox
from didi.corpus import SEPARATOR
from didi.discriminator import Discriminator
from didi.export import load_backbone, load_discriminator, save_discriminator, save_weights, weight_files
from didi.quality_picture import quality_markdown
from safetensors.torch import save_file
from tokenizers import Tokenizer

TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "stories-mdlm" / "tokenizer.json"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """A teacher, a student with its discriminator, a judge and a peer."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    config = BackboneConfig(vocab_size=tokenizer.get_vocab_size(), hidden=8, blocks=1, heads=2, cond=4, context=32)
    torch.manual_seed(0)
    for name in ("teacher", "student", "judge", "peer"):
        (root / name).mkdir()
        shutil.copyfile(TOKENIZER, root / name / "tokenizer.json")
    for name in ("teacher", "student"):
        save_weights(randomised(Backbone(config)), root / name / "weights.fp16.safetensors")
    discriminator = Discriminator(load_backbone(root / "student" / "weights.fp16.safetensors"))
    save_discriminator(discriminator, root / "student" / "discriminator.fp16.safetensors")
    guidance = {"candidates": 2, "scale_start": 1, "scale_end": 2, "rerank_ratio": 0.5}
    (root / "student" / "model.json").write_text(json.dumps({"guidance": guidance}))
    for name in ("judge", "peer"):
        model = randomised(CausalLM(config))
        save_file(to_neox(model), root / name / "model.safetensors")
        (root / name / "config.json").write_text(json.dumps(neox_config(config, tokenizer.token_to_id(SEPARATOR))))
    return root


def test_the_table_is_made_once_and_goes_on_where_it_stopped(folders, tmp_path, monkeypatch, capsys):
    def run(*flags: str) -> list[dict]:
        argv = ["--samples", "6", "--length", "16", "--threads", "1", "--out", str(tmp_path), *flags]
        for name in ("teacher", "student", "judge", "peer"):
            argv += [f"--{name}", str(folders / name)]
        monkeypatch.setattr(sys, "argv", ["evaluate", *argv])
        evaluation.main()
        return json.loads((tmp_path / "quality.json").read_text())["cells"]

    cells = run("--steps", "1", "2")
    samplers = [(cell["sampler"], cell["steps"]) for cell in cells]
    assert samplers[:3] == [("real text", None), ("shuffled words", None), ("autoregressive peer", 16)]
    assert samplers[3:] == [(s, n) for s in ("teacher", "sharpened teacher", "student", "student with RGAS") for n in (1, 2)]
    for cell in cells:
        low, high = cell["generative_perplexity_interval"]
        assert low <= cell["generative_perplexity"] <= high and cell["samples"] == 6
    assert "<svg" in (tmp_path / "quality.svg").read_text()
    table = (tmp_path / "quality.md").read_text()
    assert table.count("\n| ") == 3 and "- real text: " in table
    stored = json.loads((folders / "student" / "model.json").read_text())["quality"]
    assert [(row["sampler"], row["steps"]) for row in stored] == [(s, n) for s in ("plain", "rgas") for n in (1, 2)]
    assert [row["entropy"] for row in stored] == [cell["entropy"] for cell in cells[-4:]]
    # A judge that knows nothing of language: words in order are no better to it, and their entropy is the same.
    assert cells[0]["entropy"] == cells[1]["entropy"]

    capsys.readouterr()
    assert run("--steps", "1", "2", "4")[: len(cells)] == cells
    assert "teacher at 4 steps" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="other settings"):
        run("--steps", "1", "--seed", "9")


def test_a_distillation_writes_its_log_and_students_and_resumes(folders, tmp_path):
    argv = ["--run", str(tmp_path), "--teacher", str(folders / "teacher" / "weights.fp16.safetensors"), "--length", "12"]
    argv += ["--groups", "2", "--group-size", "2", "--pool", "8", "--teacher-steps", "3", "--warmup", "2", "--threads", "1"]
    argv += ["--save-every", "2", "--keep-every", "2", "--discriminator-blocks", "1"]

    def run(iterations: int, *flags: str) -> list[dict]:
        distillation.distill(distillation.parse_args([*argv, "--iterations", str(iterations), *flags]))
        with (tmp_path / "log.csv").open() as file:
            return list(csv.DictReader(file))

    assert [row["iteration"] for row in run(2)] == ["1", "2"]
    with pytest.raises(SystemExit, match="--resume"):
        run(4)
    assert [row["iteration"] for row in run(4, "--resume")] == ["1", "2", "3", "4"]
    teacher = load_backbone(folders / "teacher" / "weights.fp16.safetensors")
    for n in (2, 4):
        student = load_backbone(tmp_path / f"student-{n:06}.safetensors")
        assert not torch.equal(student.vocab_embed.embedding, teacher.vocab_embed.embedding)
    discriminator = load_discriminator(tmp_path / "checkpoint.pt")
    assert weight_files(tmp_path / "checkpoint.pt") == (tmp_path / "checkpoint.pt", tmp_path / "checkpoint.pt")
    assert discriminator(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3)


def test_real_text_takes_the_teacher_s_place_and_a_group_of_one_is_refused(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(distillation, "Tokenizer", SimpleNamespace(from_file=cache(Tokenizer.from_file)))
    monkeypatch.setattr(distillation, "load_stream", cache(distillation.load_stream))
    argv = ["--run", str(tmp_path), "--teacher", str(folders / "teacher" / "weights.fp16.safetensors"), "--length", "12"]
    argv += ["--reference", "data", "--groups", "2", "--pool", "8", "--iterations", "1", "--threads", "1"]
    argv += ["--discriminator-blocks", "1"]
    distillation.distill(distillation.parse_args([*argv, "--group-size", "2"]))
    assert (tmp_path / "checkpoint.pt").exists() and not (tmp_path / "teacher-samples.pt").exists()
    windows = distillation.training_windows(distillation.parse_args(argv))
    assert windows.shape == (8, 12) and " the" in Tokenizer.from_file(str(TOKENIZER)).decode(windows.flatten().tolist())
    with pytest.raises(SystemExit):
        distillation.parse_args([*argv, "--group-size", "1"])
    assert "--no-group-normalisation" in capsys.readouterr().err


def test_a_log_is_drawn_without_what_was_switched_off(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text(
        ",".join(distillation.LOG_FIELDS) + "\n1,1.5,0.5,,,,\n2,1.2,0.6,-0.5,0.1,0.0,3\n3,1.1,0.7,-0.4,0.2,0.0,2\n"
    )
    monkeypatch.setattr(sys, "argv", ["distill_curves", "--run", str(tmp_path), "--out", str(tmp_path)])
    distill_curves.main()
    picture = (tmp_path / "distillation.svg").read_text()
    assert "reward (log-odds)" in picture and "entropy" not in picture
    judged = [{"iteration": i, "generative_perplexity": 90, "low": 80, "high": 95, "entropy": 4} for i in (0, 2)]
    with (tmp_path / "log.csv").open() as file:
        distill_curves.draw(judged, list(csv.DictReader(file)), 8, tmp_path / "judged.svg")
    picture = (tmp_path / "judged.svg").read_text()
    assert all(title in picture for title in ("generative perplexity, 8 steps", "entropy of samples", "reward (log-odds)"))


def test_a_folder_s_weights_are_exported_again_sharpened(folders, tmp_path, monkeypatch):
    shutil.copyfile(TOKENIZER, tmp_path / "tokenizer.json")
    monkeypatch.setattr(sys, "argv", ["export", "--checkpoint", str(folders / "student"), "--out", str(tmp_path), "--temperature", "0.5"])
    exporting.main()
    before = load_backbone(folders / "student" / "weights.fp16.safetensors")
    after = load_backbone(tmp_path / "weights.fp16.safetensors")
    tokens = torch.arange(10)[None]
    assert torch.allclose(after(tokens), 2 * before(tokens), atol=1e-3)
    assert set(json.loads((tmp_path / "model.json").read_text())["graphs"]) == {"denoise", "tilt", "score"}


def test_the_card_s_table_is_that_of_the_result_file():
    models = TOKENIZER.parents[1]
    content = json.loads((models / "stories-didi" / "quality.json").read_text())
    table = quality_markdown(content["cells"])
    assert (models / "stories-didi" / "quality.md").read_text() == table
    # The card's columns are padded to one width.
    squeeze = lambda text: re.sub(r"-{3,}", "---", re.sub(r" +", " ", text))  # noqa: E731
    assert squeeze(table) in squeeze((models / "README.md").read_text())
