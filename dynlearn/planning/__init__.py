"""Planners over any dynamics: a model in this process, one on a server, or the truth."""

from dynlearn.planning.cem import CEM
from dynlearn.rollout.returns import Returns, estimate_returns

__all__ = ["CEM", "Returns", "estimate_returns"]
