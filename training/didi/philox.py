"""Philox4x32-10 (Salmon et al. 2011), vectorised over counters.

Uniforms are a pure function of (seed, sample, step, candidate, position), so what is drawn never
depends on what a sample was batched with. The layout is part of the model format: the server
draws the same numbers.
"""

import numpy as np

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], dtype=np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], dtype=np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)

# Which word of the block serves which purpose. CHOOSE, among the candidates of a step, is that of position 0 and candidate 0.
REVEAL, DRAW, CHOOSE = 0, 1, 2


def philox4x32(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Ten rounds. counter [N, 4] and key [2] of 32-bit words -> [N, 4] uint64 holding 32-bit words."""
    c = [counter[:, i].astype(np.uint64) & _LOW for i in range(4)]
    k = np.asarray(key, dtype=np.uint64) & _LOW
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c[0], _MULTIPLIERS[1] * c[2]
        c = [(p1 >> _32) ^ c[1] ^ k[0], p1 & _LOW, (p0 >> _32) ^ c[3] ^ k[1], p0 & _LOW]
        k = (k + _WEYL) & _LOW
    return np.stack(c, axis=1)


def uniforms(seed: int, sample: int, step: int, candidate: int, positions: np.ndarray, purpose: int) -> np.ndarray:
    """Uniforms in (0, 1), one a position [N]: multiples of 2**-24, exact in float32, never 0 or 1."""
    positions = np.asarray(positions)
    counter = np.empty((len(positions), 4), dtype=np.uint64)
    counter[:, 0] = positions
    counter[:, 1] = step
    counter[:, 2] = sample
    counter[:, 3] = candidate
    words = philox4x32(counter, np.array([seed & 0xFFFFFFFF, seed >> 32]))[:, purpose]
    return ((words >> np.uint64(9)).astype(np.float64) + 0.5) * 2.0**-23
