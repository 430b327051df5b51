"""Objectives that fit moments instead of a likelihood."""

from torch import Tensor

from dynlearn.gaussian import DiagonalGaussian


class MSE:
    """Squared error of the mean; the variance is a constant measured on validation data."""

    learned_variance = False

    def loss(self, prediction: DiagonalGaussian, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's mean squared error over batch and dimensions, [E]."""
        return (prediction.mean - target).square().mean((-2, -1))
