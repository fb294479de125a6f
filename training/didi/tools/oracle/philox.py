"""The random numbers of the server."""

import numpy as np

# Constants of Philox4x32-10 (Salmon et al. 2011).
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], dtype=np.uint64)
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], dtype=np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)

# Word of a Philox block for each purpose. CHOOSE, among a step's candidates, is that of position 0, candidate
# 0.
REVEAL, DRAW, CHOOSE, REMASK = 0, 1, 2, 3


def philox4x32(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Run ten rounds: counter [N, 4] and key [2] of 32-bit words -> [N, 4] uint64 that hold 32-bit words."""
    c = [counter[:, i].astype(np.uint64) & _LOW for i in range(4)]
    k = np.asarray(key, dtype=np.uint64) & _LOW
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c[0], _MULTIPLIERS[1] * c[2]
        c = [(p1 >> _32) ^ c[1] ^ k[0], p1 & _LOW, (p0 >> _32) ^ c[3] ^ k[1], p0 & _LOW]
        k = (k + _WEYL) & _LOW
    return np.stack(c, axis=1)


def uniforms(
    seed: int, sample: int, step: int, candidate: int, positions: np.ndarray, purpose: int
) -> np.ndarray:
    """Return one uniform in (0, 1) for each position [N]: a multiple of 2**-24, exact in float32, never 0 or
    1.

    It is a function of the arguments alone, so a draw never depends on the batch. The server uses the same
    layout.
    """
    positions = np.asarray(positions)
    counter = np.empty((len(positions), 4), dtype=np.uint64)
    counter[:, 0] = positions
    counter[:, 1] = step
    counter[:, 2] = sample
    counter[:, 3] = candidate
    words = philox4x32(counter, np.array([seed & 0xFFFFFFFF, seed >> 32]))[:, purpose]
    return ((words >> np.uint64(9)).astype(np.float64) + 0.5) * 2.0**-23
