"""Objectives that fit moments instead of a likelihood."""

from torch import Tensor

from dynlearn.config.choices import Covariance
from dynlearn.distributions.gaussian import DiagonalGaussian
from dynlearn.distributions.mixture import Distribution
from dynlearn.models.heads import HeadKind
from dynlearn.objectives.objective import Objective, require_diagonal


class MSE(Objective):
    """Squared error of the mean; the variance is a constant measured on validation data."""

    name = "mse"

    def head(self, covariance: Covariance) -> HeadKind:
        """Return the head of a mean alone."""
        require_diagonal(covariance, self.name)
        return "mean"

    def loss(self, prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's mean squared error over batch and dimensions, [E]."""
        return (prediction.mean - target).square().mean((-2, -1))


class MomentMatching(Objective):
    """Squared error of the mean, and of the standard deviation against the absolute residual.

    The baseline «MM» of Seitzer et al. 2022. Even at its optimum the deviation is that of
    ``E|r|``, 0.798 of a Gaussian's own.
    """

    name = "moment_matching"

    def head(self, covariance: Covariance) -> HeadKind:
        """Return the head of a standard deviation."""
        require_diagonal(covariance, self.name)
        return "std"

    def loss(self, prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E], the mean over batch and dimensions."""
        assert isinstance(prediction, DiagonalGaussian)
        error = prediction.mean - target
        deviation = prediction.std - error.detach().abs()
        return (error.square() + deviation.square()).mean((-2, -1))
