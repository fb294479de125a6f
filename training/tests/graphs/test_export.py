"""Model folders, and the weight files in them."""

import copy
import hashlib
import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models

from conftest import TOKENIZER
from didi import export as exporting
from didi.backbone import load_backbone, save_backbone
from didi.export import write_model_folder
from didi.graphs.calibration import PERCENTILES
from didi.guidance import Discriminator, load_published_state, published_state, save_discriminator


def test_weights_come_back_from_their_file(backbone, tmp_path):
    save_backbone(backbone, tmp_path / "weights.safetensors")
    loaded = load_backbone(tmp_path / "weights.safetensors")
    assert loaded.config == backbone.config
    for name, tensor in backbone.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-6), name


def test_a_discriminator_comes_back_from_its_file(backbone, tmp_path):
    torch.manual_seed(1)
    discriminator, other = Discriminator(backbone).eval(), Discriminator(backbone).eval()
    save_discriminator(discriminator, tmp_path / "discriminator.safetensors")
    load_published_state(other, load_file(tmp_path / "discriminator.safetensors"))
    for name, tensor in published_state(discriminator).items():
        assert torch.allclose(published_state(other)[name], tensor, rtol=1e-3, atol=1e-6), name
    tokens = torch.randint(0, 60, (1, 9))
    assert torch.allclose(other(tokens), discriminator(tokens), rtol=1e-2)


def test_a_model_folder_names_its_files_and_fits_its_tokenizer(backbone, tmp_path):
    """The exporter's notes, which name paths of this machine, are removed."""
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    about = {"name": "small", "description": "A test.", "licence": "MIT", "backbone": copy.deepcopy(backbone)}
    with pytest.raises(ValueError, match="no token <.endoftext.>"):
        write_model_folder(tmp_path, **about)
    tokenizer.add_special_tokens(["<|endoftext|>", *(f"<{i}>" for i in range(60))])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="id 61, outside the model's vocabulary of 61"):
        write_model_folder(tmp_path, **about)
    Tokenizer.from_str(tokenizer.to_str().replace("<59>", "<58>")).save(str(tmp_path / "tokenizer.json"))

    quality = [{"sampler": "plain", "steps": 8, "generative_perplexity": 50.0, "entropy": 5.0}]
    write_model_folder(tmp_path, **about, quality=quality)
    manifest = json.loads((tmp_path / "model.json").read_text())
    assert manifest["quality"] == quality and "guidance" not in manifest
    files = (manifest["tokenizer"], manifest["weights"], manifest["graphs"]["denoise"]["fp32"])
    for entry in files:
        data = (tmp_path / entry["file"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["bytes"])
    graph = (tmp_path / "denoise.fp32.onnx").read_bytes()
    assert b"stack_trace" not in graph and b"denoise.py" not in graph


def folder_with_tokenizer(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return {"name": "small", "description": "A test.", "licence": "MIT"}


def test_a_folder_in_int8_says_how_it_was_calibrated(backbone, tmp_path):
    about = folder_with_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="int8 needs text to calibrate on"):
        write_model_folder(tmp_path, **about, backbone=copy.deepcopy(backbone), precisions=("fp32", "int8"))
    windows = torch.randint(0, backbone.config.mask_id, (16, 32))
    about |= {"backbone": copy.deepcopy(backbone), "precisions": ("fp32", "int8")}
    write_model_folder(tmp_path, **about, windows=windows)
    calibration = json.loads((tmp_path / "model.json").read_text())["calibration"]
    assert (calibration["windows"], calibration["tokens"]) == (16, 32)
    assert calibration["percentile"] in PERCENTILES
    assert calibration["float32"][0] == "weights.fp16.safetensors/output_layer.linear.weight"


def test_a_folder_s_weights_are_exported_again_sharpened(folders, tmp_path, monkeypatch):
    shutil.copyfile(TOKENIZER, tmp_path / "tokenizer.json")
    argv = ["export", "--checkpoint", str(folders / "student"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*argv, "--temperature", "0.5", "--alphabet", "runes"])
    exporting.main()
    before = load_backbone(folders / "student" / "weights.fp16.safetensors")
    after = load_backbone(tmp_path / "weights.fp16.safetensors")
    tokens = torch.arange(10)[None]
    assert torch.allclose(after(tokens), 2 * before(tokens), atol=1e-3)
    manifest = json.loads((tmp_path / "model.json").read_text())
    assert set(manifest["graphs"]) == {"denoise", "tilt", "score"} and manifest["alphabet"] == "runes"
