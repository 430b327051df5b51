"""Student's t distribution: a Gaussian whose precision is itself uncertain, gamma-distributed.

Shapes: D dimensions, ``...`` any batch dimensions.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dynlearn.distributions.gaussian import Batched


@dataclass(frozen=True)
class StudentT(Batched):
    """Independent dimensions: y ~ N(mean, 1/λ), λ ~ Gamma(concentration, rate); each [..., D].

    2·concentration degrees of freedom, squared scale rate / concentration. The concentration is
    above one, so that the variance is finite.
    """

    mean: Tensor
    concentration: Tensor
    rate: Tensor

    @property
    def variance(self) -> Tensor:
        """The variances, [..., D]."""
        return self.rate / (self.concentration - 1)

    @property
    def covariance(self) -> Tensor:
        """The covariance, [..., D, D]."""
        return torch.diag_embed(self.variance)

    def log_prob_per_dimension(self, value: Tensor) -> Tensor:
        """Return the log-density of each dimension of ``value`` [..., D], as [..., D]."""
        a, b = self.concentration, self.rate
        # In float64: in float32 the difference of the two is wrong by 4e-4, its slope by 1e-3.
        precise = a.double()
        gammas = (torch.lgamma(precise + 0.5) - torch.lgamma(precise)).to(a)
        tail = (a + 0.5) * torch.log1p((value - self.mean).square() / (2 * b))
        return gammas - 0.5 * (math.log(2 * math.pi) + b.log()) - tail

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the joint log-density of ``value`` [..., D], as [...]."""
        return self.log_prob_per_dimension(value).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """Return what standard normal ``noise`` [..., D] stands for under the matching Gaussian."""
        return self.mean + self.variance.sqrt() * noise

    def affine(self, scale: Tensor, shift: Tensor) -> "StudentT":
        """Return the distribution of ``scale * x + shift``; scale [D] is positive."""
        return StudentT(self.mean * scale + shift, self.concentration, self.rate * scale.square())

    def widen(self, std: Tensor) -> "StudentT":
        """Return the distribution whose variance is larger by ``std`` [D] squared."""
        rate = self.rate + std.square() * (self.concentration - 1)
        return StudentT(self.mean, self.concentration, rate)


@dataclass(frozen=True)
class VariationalStudentT(StudentT):
    """A Student's t whose gamma is a posterior, with the prior's mixture logits [..., D, C]."""

    prior_logits: Tensor
