"""How the papers' synthetic targets come about: Gaussian, with moments known at every input.

Shapes: N samples, D target dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.data.table import Array, Table
from dynlearn.distributions.gaussian import FullGaussian


@dataclass(frozen=True)
class Samples(Table):
    """Inputs [N, 1] and targets [N, D], with the targets' true distribution.

    Attributes:
        mean: the true mean, [N, D].
        covariance: the true covariance, [N, D, D].
    """

    mean: Array
    covariance: Array

    @property
    def truth(self) -> FullGaussian:
        """The distribution of the targets, [N, D] in float64."""
        return _gaussian(self.mean, self.covariance)

    @property
    def oracle_nll(self) -> float:
        """The expected NLL of the truth, in nats summed over dimensions."""
        return float(self.truth.entropy().mean())

    @property
    def oracle_mse(self) -> float:
        """The expected squared error of the true mean, averaged over dimensions."""
        return float(self.covariance.diagonal(axis1=1, axis2=2).mean())


@dataclass(frozen=True)
class Process:
    """A Gaussian whose moments depend on a scalar.

    Attributes:
        mean: from inputs [N] to [N, D].
        factor: from inputs [N] to [N, D, D]; the covariance is factor · factorᵀ.
    """

    mean: Callable[[Array], Array]
    factor: Callable[[Array], Array]

    def truth(self, inputs: Array) -> FullGaussian:
        """Return the distribution of the targets at ``inputs`` [N], in float64."""
        factor = self.factor(inputs)
        return _gaussian(self.mean(inputs), factor @ factor.mT)

    def draw(self, inputs: Array, generator: np.random.Generator) -> Samples:
        """Draw one target for each of ``inputs`` [N]."""
        mean, factor = self.mean(inputs), self.factor(inputs)
        noise = generator.standard_normal((*mean.shape, 1))
        targets = mean + (factor @ noise).squeeze(-1)
        return Samples(inputs[:, None], targets, mean, factor @ factor.mT)


def sine(std: float) -> Process:
    """The curve 0.4 sin 2πx, with the same noise everywhere."""
    return _scalar(lambda x: 0.4 * np.sin(2 * np.pi * x), lambda x: np.full_like(x, std))


def detlefsen(std: Callable[[Array], Array]) -> Process:
    """The curve x sin x, with noise of the given standard deviation at each x."""
    return _scalar(lambda x: x * np.sin(x), std)


def nn_constant() -> Process:
    """Eight steps of mean and noise on [-1, 1]; a border belongs to the step on its right."""
    stds = np.tile([0.01, 0.02, 1.0, 5.0], 2)

    def step(x: Array) -> Array:
        return np.clip(np.floor(4 * (x + 1)), 0, 7)

    return _scalar(lambda x: 0.75 * step(x) - 3, lambda x: stds[step(x).astype(int)])


def spiral(k: int) -> Process:
    """A spiral in three dimensions whose covariance turns along with it, shrunk by 10⁻ᵏ.

    The axes of the covariance are tilted by π/3 from the first towards the third dimension and
    then turned by t about the third, with the spiral. Its smallest variance is 10⁻⁴⁻ᵏ.
    """

    def mean(t: Array) -> Array:
        return np.stack([0.5 * np.cos(t), 0.5 * np.sin(t), 0.05 * t], axis=-1)

    def factor(t: Array) -> Array:
        third = np.maximum(0.1 - 0.01 * (t - 10) ** 2, 1e-4)
        variances = np.stack([np.full_like(t, 0.1), np.full_like(t, 0.2), third], axis=-1)
        rotation = _rotation(t, 1) @ _rotation(np.full_like(t, np.pi / 3), 2)
        return rotation * np.sqrt(variances * 10.0**-k)[:, None, :]

    return Process(mean, factor)


def _gaussian(mean: Array, covariance: Array) -> FullGaussian:
    factor = torch.linalg.cholesky(torch.from_numpy(covariance))
    return FullGaussian(torch.from_numpy(mean), factor)


def _scalar(mean: Callable[[Array], Array], std: Callable[[Array], Array]) -> Process:
    return Process(lambda x: mean(x)[:, None], lambda x: std(x)[:, None, None])


def _rotation(angle: Array, axis: int) -> Array:
    """Return rotations [N, 3, 3] that turn the first axis towards ``axis`` by ``angle`` [N]."""
    rotation = np.tile(np.eye(3), (len(angle), 1, 1))
    rotation[:, 0, 0] = rotation[:, axis, axis] = np.cos(angle)
    rotation[:, axis, 0] = np.sin(angle)
    rotation[:, 0, axis] = -np.sin(angle)
    return rotation
