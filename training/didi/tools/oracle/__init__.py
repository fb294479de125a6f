"""Reference samplers that draw the server's random numbers (philox.py, spread.py, sampler.py, smc.py)."""

from .sampler import Remask, Sample, choice_scores, draw, sample, sample_guided
from .smc import sample_smc

__all__ = ["Remask", "Sample", "choice_scores", "draw", "sample", "sample_guided", "sample_smc"]
