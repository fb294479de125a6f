"""Order "spread": each step reveals positions that lie apart."""

import numpy as np

from .philox import REVEAL, uniforms


def spread_out(masked: np.ndarray, first: int, seed: int, step: int, start: int, end: int) -> np.ndarray:
    """Return which of the `masked` positions, from `first` on, `step` reveals in order "spread".

    Of the steps [start, end), a random permutation by the REVEAL uniforms of `start` says which one reveals
    the positions with a given remainder by their number.
    """
    u = uniforms(seed, 0, start, 0, np.arange(end - start), REVEAL)
    rank = u.argsort(kind="stable").argsort()
    return masked[start + rank[(masked - first) % (end - start)] <= step]
