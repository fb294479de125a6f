"""Reference samplers that draw the server's random numbers (philox.py, sampler.py)."""

from .sampler import Generation, Remask, choice_scores, draw, sample, sample_guided

__all__ = ["Generation", "Remask", "choice_scores", "draw", "sample", "sample_guided"]
