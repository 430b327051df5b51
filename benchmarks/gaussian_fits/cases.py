"""The cases of A.1 and Table 4 of the Trustable paper: true Gaussians, and where fits begin.

Shapes: N instances, B samples, D dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dynlearn.distributions.gaussian import FullGaussian
from dynlearn.trust_region.square_root import lower_root

_DIMENSIONS = 10
_MEAN_RANGE = 5.0

Eigenvalues = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """True Gaussians and those that fits begin at, [N] each."""

    truth: FullGaussian
    initial: FullGaussian


@dataclass(frozen=True)
class Moments:
    """All that a Gaussian's NLL depends on in a minibatch.

    Attributes:
        mean: of each instance's samples, [N, D].
        covariance: of the samples about their mean, divided by B, [N, D, D].
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Self:
        """Return the moments of samples [N, B, D]."""
        mean = samples.mean(1)
        deviations = samples - mean.unsqueeze(1)
        return cls(mean, deviations.mT @ deviations / samples.shape[1])


def draw(truth: FullGaussian, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` samples of each Gaussian, [N, B, D]."""
    instances, dimensions = truth.mean.shape
    noise = torch.randn(instances, count, dimensions, generator=generator, dtype=torch.float64)
    return truth.mean.unsqueeze(1) + noise @ truth.scale_tril.mT


def univariate_cases(instances: int) -> dict[str, Case]:
    """Return the 1-D cases; an instance differs from the next in its samples alone.

    Table 4 prints a small variance of 0.1 and the text 0.01, which these have.
    """
    ends = {"I": (1.0, 0.01), "II": (1.0, 1.0), "III": (0.01, 1.0)}

    def gaussians(mean: float, variance: float) -> FullGaussian:
        shape = instances, 1
        return FullGaussian(
            torch.full(shape, mean, dtype=torch.float64),
            torch.full((*shape, 1), variance**0.5, dtype=torch.float64),
        )

    return {
        name: Case(gaussians(5.0, final), gaussians(0.0, first))
        for name, (first, final) in ends.items()
    }


def multivariate_cases(instances: int, seed: int) -> dict[str, Case]:
    """Return the 10-D cases: means, eigenvalues and rotations are drawn for each instance."""
    initial: dict[str, Eigenvalues] = {
        "I": _near_one,
        "II": _mostly_small,
        "III": _mostly_large,
        "IV": _mixed,
    }
    cases = {}
    for number, (name, eigenvalues) in enumerate(initial.items()):
        generator = np.random.default_rng([seed, number])
        cases[name] = Case(
            _gaussians(_near_one, instances, generator),
            _gaussians(eigenvalues, instances, generator),
        )
    return cases


def _near_one(generator: np.random.Generator) -> np.ndarray:
    return generator.beta(2, 2, _DIMENSIONS) + 0.5


def _mostly_small(generator: np.random.Generator) -> np.ndarray:
    return generator.beta(0.5, 8, _DIMENSIONS) + 0.01


def _mostly_large(generator: np.random.Generator) -> np.ndarray:
    return 100 * generator.beta(8, 0.5, _DIMENSIONS)


def _mixed(generator: np.random.Generator) -> np.ndarray:
    is_large = generator.random(_DIMENSIONS) < 0.5
    return np.where(is_large, _mostly_large(generator), _mostly_small(generator))


def _gaussians(
    eigenvalues: Eigenvalues, instances: int, generator: np.random.Generator
) -> FullGaussian:
    means, roots = [], []
    for _ in range(instances):
        means.append(generator.uniform(-_MEAN_RANGE, _MEAN_RANGE, _DIMENSIONS))
        roots.append(_rotation(generator) * np.sqrt(eigenvalues(generator)))
    return FullGaussian(
        torch.from_numpy(np.stack(means)), lower_root(torch.from_numpy(np.stack(roots)))
    )


def _rotation(generator: np.random.Generator) -> np.ndarray:
    """Return the product of rotations of the first direction with each of the others."""
    rotation = np.eye(_DIMENSIONS)
    for other in range(1, _DIMENSIONS):
        angle = generator.uniform(0, np.pi)
        plane = np.eye(_DIMENSIONS)
        plane[0, 0] = plane[other, other] = np.cos(angle)
        plane[0, other], plane[other, 0] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ plane
    return rotation
