"""How to fit an ensemble: objectives turn predictions, targets and sample ids into losses.

Add one by writing a class with the shape of `Objective` and naming it in `make_objective`.
"""

from typing import Protocol

from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.gaussian import DiagonalGaussian
from dynlearn.objectives.likelihood import BetaNLL
from dynlearn.objectives.moments import MSE

__all__ = ["MSE", "BetaNLL", "Objective", "make_objective"]


class Objective(Protocol):
    """A way to fit. Shapes: E members, B batch, D targets; all values standardised."""

    @property
    def learned_variance(self) -> bool:
        """Whether the network gives a variance; else it is measured on validation data."""

    def loss(self, prediction: DiagonalGaussian, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E].

        Args:
            prediction: [E, B, D].
            target: [E, B, D].
            sample_ids: which transition each row is, stable over epochs and resamples, [E, B].
        """


def make_objective(config: TrainConfig) -> Objective:
    """Return the objective that a configuration names."""
    if config.objective == "mse":
        return MSE()
    return BetaNLL(config.beta if config.objective == "beta_nll" else 0.0)
