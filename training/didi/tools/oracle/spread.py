"""Order "spread": each step reveals positions that lie apart."""

import numpy as np

from .philox import REVEAL, uniforms


def spread_out(masked: np.ndarray, first: int, seed: int, step: int, start: int, end: int) -> np.ndarray:
    """Return which of the `masked` positions [P] `step` reveals in order "spread", as positions [Q].

    The positions of a block are numbered from `first` on. A random permutation, by the REVEAL uniforms of
    step `start`, says which of its n = `end` - `start` steps reveals those with a given remainder by n.
    """
    u = uniforms(seed, 0, start, 0, np.arange(end - start), REVEAL)
    rank = u.argsort(kind="stable").argsort()
    return masked[start + rank[(masked - first) % (end - start)] <= step]
