"""Networks and folders that several tests use."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from didi import corpus
from didi.backbone import Backbone, BackboneConfig, load_backbone, save_backbone
from didi.causal import CausalLM, neox_config, to_neox
from didi.guidance import Discriminator, save_discriminator

TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "stories-mdlm" / "tokenizer.json"

# The models of the tests are far too small for a second thread to pay.
torch.set_num_threads(1)


def randomised(model: nn.Module, scale: float = 0.2) -> nn.Module:
    """Move every weight off its initial value, so that nothing is zero by initialisation."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model.eval()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A small denoiser with every weight random. A module shares it, so tests do not change it."""
    torch.manual_seed(3)
    config = BackboneConfig(vocab_size=61, hidden=32, blocks=3, heads=4, cond=16, context=64)
    return randomised(Backbone(config))


def discriminator_of(backbone: Backbone) -> Discriminator:
    """Return a discriminator for evaluation whose estimates of its spectral norms have converged."""
    model = Discriminator(backbone)
    for _ in range(10):  # each training pass improves the estimates
        model(torch.zeros(1, 2, dtype=torch.int64))
    return model.eval()


@pytest.fixture
def pair() -> tuple[Backbone, Discriminator]:
    """Return a student of 3 tokens and its discriminator: small enough to enumerate all texts."""
    torch.manual_seed(1)
    config = BackboneConfig(vocab_size=4, hidden=16, blocks=2, heads=2, cond=8, context=4)
    student = randomised(Backbone(config), 0.1)
    return student, discriminator_of(student)


@pytest.fixture(scope="session", autouse=True)
def encoded_once():
    """Encode each split of the corpus once for all tests."""
    load, encoded = corpus.load_stream, {}

    def load_once(source: str, split: str, tokenizer: Tokenizer) -> corpus.Stream:
        key = (source, split, tokenizer.to_str())
        if key not in encoded:
            encoded[key] = load(source, split, tokenizer)
        return encoded[key]

    corpus.load_stream = load_once
    yield
    corpus.load_stream = load


def make_inputs(
    mask_id: int, temperature: float, lengths: tuple[int, ...] = (40, 17, 29), repeats: int = 4, seed: int = 5
) -> dict[str, np.ndarray]:
    """Return inputs of `denoise`: half-masked canvases, one of each length, `repeats` draws at each mask."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, mask_id, (len(lengths), max(lengths)))
    tokens[rng.random(tokens.shape) < 0.5] = mask_id
    picks = np.array(
        [(row, i) for row, n in enumerate(lengths) for i in range(n) if tokens[row, i] == mask_id]
    )
    draws = np.repeat(np.arange(len(picks)), repeats)
    return {
        "tokens": tokens.astype(np.int64),
        "length": np.array(lengths, dtype=np.int64),
        "picks": picks.astype(np.int64),
        "draws": draws.astype(np.int64),
        "uniform": rng.random(len(draws), dtype=np.float32),
        "temperature": np.full(len(draws), temperature, dtype=np.float32),
        "top_k": np.zeros(len(draws), dtype=np.int64),
        "top_p": np.ones(len(draws), dtype=np.float32),
        "alternatives": np.zeros(3, dtype=np.int64),
    }


def assert_rows_equal_alone(session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray]) -> None:
    """Assert that `denoise` gives each row the same bits alone and with the others."""
    together = session.run(None, feeds)
    for row in range(len(feeds["tokens"])):
        own = feeds["picks"][:, 0] == row
        drawn = own[feeds["draws"]]
        one = {name: feeds[name][row : row + 1] for name in ("tokens", "length")}
        one["picks"] = feeds["picks"][own] * [0, 1]
        one["draws"] = feeds["draws"][drawn] - feeds["draws"][drawn].min()
        one |= {name: feeds[name][drawn] for name in ("uniform", "temperature", "top_k", "top_p")}
        one["alternatives"] = feeds["alternatives"]
        for a, b, mine in zip(session.run(None, one), together, (drawn, drawn, own, own, own)):
            assert (a == b[mine]).all()


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Path:
    """Folders of a teacher, a student with its discriminator, a judge and a peer, all untrained and tiny."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    vocabulary = tokenizer.get_vocab_size()
    config = BackboneConfig(vocabulary, hidden=8, blocks=1, heads=2, cond=4, context=32)
    torch.manual_seed(0)
    for name in ("teacher", "student", "judge", "peer"):
        (root / name).mkdir()
        shutil.copyfile(TOKENIZER, root / name / "tokenizer.json")
    for name in ("teacher", "student"):
        save_backbone(randomised(Backbone(config)), root / name / "weights.fp16.safetensors")
    discriminator = Discriminator(load_backbone(root / "student" / "weights.fp16.safetensors"))
    save_discriminator(discriminator, root / "student" / "discriminator.fp16.safetensors")
    guidance = {"candidates": 2, "scale_start": 1, "scale_end": 2, "rerank_ratio": 0.5}
    (root / "student" / "model.json").write_text(json.dumps({"guidance": guidance}))
    for name in ("judge", "peer"):
        model = randomised(CausalLM(config))
        save_file(to_neox(model), root / name / "model.safetensors")
        sizes = neox_config(config, tokenizer.token_to_id(corpus.SEPARATOR))
        (root / name / "config.json").write_text(json.dumps(sizes))
    return root
