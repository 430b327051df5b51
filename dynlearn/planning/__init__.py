"""Planners over any dynamics: a model in this process, one on a server, or the truth."""

from dynlearn.planning.cem import CEM
from dynlearn.rollout.returns import Estimator, Returns, estimate_returns

__all__ = ["CEM", "Estimator", "Returns", "estimate_returns"]
