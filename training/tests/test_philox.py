import numpy as np
import pytest
from didi.philox import DRAW, REVEAL, philox4x32, uniforms

# The known answers published with Random123.
KNOWN = [
    ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0], "d16cfe09 94fdcceb 5001e420 24126ea1"),
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
