"""Converted checkpoints against the plain forward of `published.py`, and the errors of the converter."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import published
from conftest import make_inputs
from didi.convert import ConversionError, convert
from didi.tools.random_checkpoint import write_checkpoint

VOCAB, HIDDEN, HEADS, CONTEXT = 61, 32, 2, 48
MASK = VOCAB - 1
SIGMAS = (0.05, 1.7, 6.9)  # one a row; the published sampler goes from 6.9 down to 1e-5
LENGTHS = (24, 13, 19)
IGNORED = -1e9

# Largest difference of a log-probability, and of a reward relative to its size.
TOLERANCE = {"fp32": 1e-4, "fp16": 0.01}
# How far from a boundary of the inverse CDF a uniform must be for its token to be compared.
MARGIN = {"fp32": 1e-4, "fp16": 0.003}


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level BPE of 60 ids without a mask, as GPT-2's: only the model has the mask's id."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: i for i, character in enumerate(alphabet[: VOCAB - 2])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, vocab=VOCAB, hidden=HIDDEN, blocks=2, cond=16, seed=4)
    write_tokenizer(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["output_layer.linear.bias"][MASK] += 2  # likely enough to be drawn where its logit is kept
    save_file(tensors, folder / "model.safetensors")
    return folder


def state(checkpoint: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / f"{name}.safetensors")


CASES = [("fp32", true_sigma, kept) for true_sigma in (False, True) for kept in (False, True)]
CASES.append(("fp16", True, True))  # every line of the folded graphs, and the gates besides


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-sigma{case[1]:d}-mask{case[2]:d}")
def converted(request, checkpoint, tmp_path_factory):
    """Return the precision, true sigma, kept mask logit and sessions of a converted folder."""
    precision, true_sigma, kept = request.param
    out = tmp_path_factory.mktemp("converted") / "model"
    options = {"true_sigma": true_sigma, "keep_mask_logit": kept, "heads": HEADS, "context": CONTEXT}
    convert(checkpoint, out, precisions=(precision,), **options)
    manifest = json.loads((out / "model.json").read_text())
    assert manifest["conditioning"] == ("sigma" if true_sigma else "none")
    assert manifest["mask_logit"] == ("kept" if kept else "removed")
    sessions = {}
    for name in ("denoise", "tilt", "score"):
        path = out / manifest["graphs"][name][precision]["file"]
        sessions[name] = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return precision, true_sigma, kept, sessions


def canvases() -> dict[str, np.ndarray]:
    return make_inputs(MASK, 1.0, LENGTHS, repeats=5, seed=9)


def run(session, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [value.name for value in session.get_inputs()]
    values = session.run(None, {name: feeds[name] for name in names})
    return dict(zip([value.name for value in session.get_outputs()], values))


def rows(feeds: dict[str, np.ndarray]) -> list[torch.Tensor]:
    """Return each row's tokens without padding."""
    return [torch.from_numpy(feeds["tokens"][b, :n]) for b, n in enumerate(LENGTHS)]


def check_draws(feeds, answer, distributions: list[torch.Tensor], margin: float) -> int:
    """Compare tokens with inverse-CDF draws where the uniform is clear of a boundary; return how many are."""
    compared = 0
    for s, pick in enumerate(feeds["draws"]):
        b, i = feeds["picks"][pick]
        cdf = distributions[b][i].double().exp().cumsum(-1)
        target = float(feeds["uniform"][s]) * cdf[-1]
        if (cdf - target).abs().min() < margin:
            continue
        compared += 1
        assert answer["token"][s] == int((cdf < target).sum())
    return compared


@pytest.mark.parametrize("mask_bias", [IGNORED, 0.0, -0.7])
def test_denoise(checkpoint, converted, mask_bias):
    precision, true_sigma, kept, sessions = converted
    feeds = canvases() | {"sigma": np.array(SIGMAS, np.float32)}
    feeds["mask_bias"] = np.full(3, mask_bias, np.float32)
    answer = run(sessions["denoise"], feeds)
    # A graph whose mask logit is removed takes no bias: whatever is offered, it never draws the mask.
    bias = mask_bias if kept else IGNORED
    student = state(checkpoint, "model")
    expected = [
        published.log_p(student, tokens, sigma if true_sigma else 0.0, HEADS, bias)
        for tokens, sigma in zip(rows(feeds), SIGMAS)
    ]
    tolerance = TOLERANCE[precision]
    for s, pick in enumerate(feeds["draws"]):
        b, i = feeds["picks"][pick]
        assert abs(answer["logprob"][s] - float(expected[b][i, answer["token"][s]])) < tolerance
    for pick, (b, i) in enumerate(feeds["picks"]):
        p = expected[b][i].exp()
        assert abs(answer["entropy"][pick] + float((p * expected[b][i]).nan_to_num().sum())) < 2 * tolerance
    assert check_draws(feeds, answer, expected, MARGIN[precision]) > 0.4 * len(feeds["draws"])
    drew_mask = bool((answer["token"] == MASK).any())
    assert drew_mask == (bias != IGNORED)


def test_score(checkpoint, converted):
    precision, true_sigma, _, sessions = converted
    feeds = canvases() | {"sigma": np.array(SIGMAS, np.float32)}
    reward = run(sessions["score"], feeds)["reward"]
    judge = state(checkpoint, "discriminator")
    for b, (tokens, sigma) in enumerate(zip(rows(feeds), SIGMAS)):
        canvas = judge["vocab_embed.embedding"][tokens]
        expected = published.scores(judge, canvas, sigma if true_sigma else 0.0, HEADS)
        assert abs(reward[b] - float(expected.sum())) < TOLERANCE[precision] * float(expected.abs().sum())


def test_tilt(checkpoint, converted):
    precision, true_sigma, kept, sessions = converted
    scales, mask_bias = (30.0, 40.0, 3.0), -0.7
    feeds = canvases() | {"sigma": np.array(SIGMAS, np.float32), "scale": np.array(scales, np.float32)}
    feeds["mask_bias"] = np.full(3, mask_bias, np.float32)
    answer = run(sessions["tilt"], feeds)
    student, judge = state(checkpoint, "model"), state(checkpoint, "discriminator")
    tolerance = TOLERANCE[precision]
    own, expected = [], []
    for b, (tokens, sigma) in enumerate(zip(rows(feeds), SIGMAS)):
        sigma = sigma if true_sigma else 0.0
        in_p = 0.0 if kept else -torch.inf
        own.append(published.log_p(student, tokens, sigma, HEADS, in_p))
        distribution, reward = published.tilted(student, judge, tokens, sigma, HEADS, scales[b], in_p)
        distribution[:, MASK] += mask_bias  # at the draw alone
        expected.append(distribution)
        assert abs(answer["reward"][b] - reward) < tolerance * max(1.0, abs(reward))
    for s, pick in enumerate(feeds["draws"]):
        b, i = feeds["picks"][pick]
        assert abs(answer["logprob"][s] - float(own[b][i, answer["token"][s]])) < tolerance
    assert check_draws(feeds, answer, expected, MARGIN[precision]) > 0.4 * len(feeds["draws"])
    moved = [float((a.exp() - b.exp()).abs().max()) for a, b in zip(own, expected)]
    assert max(moved) > 0.1, "the tilt must matter for this test to say anything"


def test_drawing_with_the_stay_probability_as_mask_bias_is_the_published_step():
    """Revealing first, then drawing with the mask at ln(stay), is distributed as the reference's one draw.

    Its weights are p_v (alpha_s - alpha_t) for tokens and 1 - alpha_s for staying masked, the mask's own p
    left out.
    """
    p = torch.softmax(torch.randn(7, generator=torch.Generator().manual_seed(2), dtype=torch.float64), -1)
    alpha_t, alpha_s = 0.3, 0.45
    reference = torch.cat([p[:-1] * (alpha_s - alpha_t), torch.tensor([1 - alpha_s], dtype=torch.float64)])
    reference /= reference.sum()
    stay = (1 - alpha_s) / (1 - alpha_t)
    weights = p * torch.tensor([1.0] * 6 + [stay], dtype=torch.float64)
    ours = (1 - stay) * weights / weights.sum()
    ours[-1] += stay
    assert torch.allclose(ours, reference, atol=1e-12)


def test_the_mdlm_family_needs_no_discriminator(checkpoint, tmp_path):
    """Such checkpoints have a prefix on their names, a rotary buffer and bfloat16 tensors."""
    source = tmp_path / "mdlm"
    source.mkdir()
    write_tokenizer(source)
    tensors = {f"backbone.{name}": tensor.bfloat16() for name, tensor in state(checkpoint, "model").items()}
    head = HIDDEN // HEADS
    tensors["backbone.rotary_emb.inv_freq"] = 10_000.0 ** (-torch.arange(0, head, 2) / head)
    save_file(tensors, source / "model.safetensors")
    convert(source, tmp_path / "model", family="mdlm", heads=HEADS, context=CONTEXT)
    manifest = json.loads((tmp_path / "model" / "model.json").read_text())
    assert set(manifest["graphs"]) == {"denoise"} and "guidance" not in manifest
    session = onnxruntime.InferenceSession(str(tmp_path / "model" / "denoise.fp32.onnx"))
    feeds = canvases()
    answer = run(session, feeds)
    rounded = {name: tensor.bfloat16().float() for name, tensor in state(checkpoint, "model").items()}
    expected = [published.log_p(rounded, tokens, 0.0, HEADS, -torch.inf) for tokens in rows(feeds)]
    for s, pick in enumerate(feeds["draws"]):
        b, i = feeds["picks"][pick]
        assert abs(answer["logprob"][s] - float(expected[b][i, answer["token"][s]])) < 1e-4


def spoil(checkpoint: Path, folder: Path) -> None:
    """Copy the checkpoint with a tensor missing, one misshapen, one too many, and a wrong rotary buffer."""
    folder.mkdir()
    write_tokenizer(folder)
    student, judge = state(checkpoint, "model"), state(checkpoint, "discriminator")
    del student["blocks.1.norm2.weight"]
    student["output_layer.linear.weight"] = torch.zeros(VOCAB, HIDDEN + 1)
    student["rotary_emb.inv_freq"] = torch.ones(HIDDEN // HEADS // 2)
    judge["output_layer.norm_final.weight"] = torch.ones(HIDDEN)
    save_file(student, folder / "model.safetensors")
    save_file(judge, folder / "discriminator.safetensors")


def test_every_bad_tensor_is_named(checkpoint, tmp_path):
    spoil(checkpoint, tmp_path / "bad")
    arguments = ["--from", str(tmp_path / "bad"), "--out", str(tmp_path / "model"), "--heads", str(HEADS)]
    done = subprocess.run(
        [sys.executable, "-m", "didi.convert", *arguments],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    head, d, file = f"{HIDDEN // HEADS}", HIDDEN, "model.safetensors"
    assert done.stderr.splitlines() == [
        "didi.convert: 4 tensors do not fit the architecture",
        f"  model.safetensors: blocks.1.norm2.weight is missing; expected [{HIDDEN}]",
        f"  {file}: output_layer.linear.weight is [{VOCAB}, {d + 1}]; expected [{VOCAB}, {d}]",
        f"  {file}: rotary_emb.inv_freq differs from 10000^(-2i/{head}), the architecture's frequencies",
        f"  discriminator.safetensors: output_layer.norm_final.weight [{d}] is not part of the architecture",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors does not exist"),
        (lambda f: (f / "discriminator.safetensors").unlink(), "discriminator.safetensors does not exist"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json does not exist"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "is not a safetensors file"),
        (
            lambda f: save_file({"a": torch.ones(1)}, f / "model.safetensors"),
            "vocab_embed.embedding.*missing",
        ),
        (lambda f: (f.parent / "model").mkdir(), "exists already"),
    ],
)
def test_what_is_not_there_is_named(checkpoint, tmp_path, break_it, says):
    source = tmp_path / "source"
    source.mkdir()
    for file in checkpoint.iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    break_it(source)
    with pytest.raises(ConversionError, match=says):
        convert(source, tmp_path / "model", family="didi-instruct", heads=HEADS, context=CONTEXT)
    assert not (tmp_path / "model" / "model.json").exists()


def test_heads_that_do_not_divide_the_width_are_refused(checkpoint, tmp_path):
    with pytest.raises(ConversionError, match="give --heads"):
        convert(checkpoint, tmp_path / "model", heads=5)


ENDS = "<|endoftext|>"
NAMED = [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]
TEMPLATES = [
    ({"chat_template": "A", "eos_token": {"content": ENDS}}, "B", "B"),
    ({"chat_template": NAMED}, None, "D"),
    ({"eos_token": ENDS}, None, None),
]


@pytest.mark.parametrize(("settings", "file", "template"), TEMPLATES)
def test_a_chat_template_comes_along(settings, file, template, checkpoint, tmp_path):
    source, out = shutil.copytree(checkpoint, tmp_path / "checkpoint"), tmp_path / "model"
    (source / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|im_end|>"}))
    (source / "chat_template.jinja").write_text("B")
    with pytest.raises(ConversionError, match=r"eos_token is <\|im_end\|>, which is no special token"):
        convert(source, out, family="mdlm", heads=HEADS, context=CONTEXT)
    assert not out.exists()
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    if file is None:
        (source / "chat_template.jinja").unlink()
    convert(source, out, family="mdlm", heads=HEADS, context=CONTEXT)
    chat = json.loads((out / "model.json").read_text()).get("chat")
    assert (chat is None) == (template is None)
    if chat is None:
        return
    assert (out / chat.pop("template")["file"]).read_text() == template
    eos = {"eos_token": ENDS} if "eos_token" in settings else {}
    assert chat == {"special_tokens": {ENDS: MASK - 1}} | eos
