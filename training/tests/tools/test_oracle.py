"""The reference samplers and their random numbers."""

import numpy as np
import pytest
import torch
from test_diffusion import V, uniform_denoiser
from test_guidance import MASK

from didi.guidance import Guidance, sample_guided
from didi.tools.oracle import sample
from didi.tools.oracle import sample_guided as oracle
from didi.tools.oracle.philox import DRAW, REVEAL, philox4x32, uniforms

# The known answers published with Random123.
KNOWN = [
    ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize("counter,key,expected", KNOWN)
def test_known_answers(counter, key, expected):
    block = philox4x32(np.array([counter], dtype=np.uint64), np.array(key, dtype=np.uint64))[0]
    assert " ".join(f"{int(w):08x}" for w in block) == expected


def test_uniforms_do_not_depend_on_company():
    alone = uniforms(12345678901234, 2, 7, 0, np.array([9]), DRAW)
    together = uniforms(12345678901234, 2, 7, 0, np.arange(20), DRAW)
    assert alone[0] == together[9]


def test_uniforms_are_uniform_and_open():
    u = uniforms(1, 0, 0, 0, np.arange(100_000), REVEAL)
    assert 0 < u.min() and u.max() < 1
    assert (u.astype(np.float32) == u).all()
    counts = np.histogram(u, bins=50, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 85.35  # chi-square, 49 degrees of freedom, p = 0.001


def test_sampler_reveals_everything_once_and_keeps_the_prompt():
    for steps in (1, 3, 40):
        drawn = sample(uniform_denoiser, prompt=[2, 3], length=12, steps=steps, seed=9, mask_id=V - 1)
        positions = sorted(r.position for step in drawn.steps for r in step.revealed)
        assert drawn.tokens[:2] == [2, 3]
        assert positions == list(range(2, 14))
        assert V - 1 not in drawn.tokens


def test_in_order_spread_a_step_reveals_every_nth_position():
    options = {"prompt": [2, 3], "length": 12, "steps": 4, "seed": 9, "mask_id": V - 1, "order": "spread"}
    steps = [[r.position for r in step.revealed] for step in sample(uniform_denoiser, **options).steps]
    assert sorted(steps) == [[2 + i, 6 + i, 10 + i] for i in range(4)]
    blocks = sample(uniform_denoiser, **options, block_length=6).steps
    assert sorted([r.position for r in step.revealed] for step in blocks[:2]) == [[2, 4, 6], [3, 5, 7]]


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_the_oracle_has_the_bulk_sampler_s_distribution(pair, steps):
    student, discriminator = pair
    guidance = Guidance(candidates=3, scale_start=2, scale_end=5)
    n = 400
    draw = lambda seed: oracle(*pair, guidance, prompt=[1], length=1, steps=steps, seed=seed)  # noqa: E731
    seeds = [draw(seed).tokens for seed in range(n)]
    torch.manual_seed(6)
    bulk = sample_guided(student, discriminator, guidance, torch.tensor([[1, MASK]]).repeat(4000, 1), steps)
    assert all(tokens[0] == 1 for tokens in seeds)
    a = torch.bincount(torch.tensor(seeds)[:, 1], minlength=3) + 0.0
    b = torch.bincount(bulk[:, 1], minlength=3) + 0.0
    scale = (4000 / n) ** 0.5
    # Two samples, 2 degrees of freedom, p = 0.001.
    assert float(((a * scale - b / scale) ** 2 / (a + b)).sum()) < 13.8


def test_the_oracle_records_what_it_did(pair):
    student, discriminator = pair
    result = oracle(student, discriminator, Guidance(candidates=3), prompt=[0], length=3, steps=4, seed=11)
    assert [step.kind for step in result.steps[:4]] == ["tilt", "tilt", "rerank", "rerank"]
    assert sum(len(step.revealed) for step in result.steps) == 3 and MASK not in result.tokens
    for step in result.steps:
        if step.kind == "rerank" and step.rewards:
            assert len(step.rewards) == 3 and step.chosen in (0, 1, 2)
        if step.kind == "tilt":
            assert len(step.rewards) == (1 if step.revealed else 0)
    again = oracle(student, discriminator, Guidance(candidates=3), prompt=[0], length=3, steps=4, seed=11)
    assert again == result
