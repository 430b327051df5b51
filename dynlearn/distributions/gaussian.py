"""Gaussians with diagonal or full covariance: density, entropy, sampling, divergences.

A full covariance is held as its lower Cholesky factor, so it is positive definite at every step,
its determinant is a product and its inverse a triangular solve.

Shapes: D dimensions, ``...`` any batch dimensions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

_LOG_2PI = math.log(2 * math.pi)


class Batched:
    """A distribution whose tensors share their batch dimensions, so that it can be indexed."""

    def apply(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the distribution with ``function`` applied to each of its tensors."""
        return type(self)(*(function(tensor) for tensor in vars(self).values()))

    def __getitem__(self, index: Any) -> Self:
        """Return the part of the batch that ``index`` picks."""
        return self.apply(lambda tensor: tensor[index])


BatchedT = TypeVar("BatchedT", bound=Batched)


def concatenate(parts: Sequence[BatchedT], dim: int) -> BatchedT:
    """Return several distributions of one kind as one, along a batch dimension from the first."""
    tensors = zip(*(vars(part).values() for part in parts), strict=True)
    return type(parts[0])(*(torch.cat(same, dim) for same in tensors))


@dataclass(frozen=True)
class DiagonalGaussian(Batched):
    """A normal distribution with independent dimensions: mean and variance, each [..., D]."""

    mean: Tensor
    variance: Tensor

    @property
    def std(self) -> Tensor:
        """The standard deviations, [..., D]."""
        return self.variance.sqrt()

    @property
    def covariance(self) -> Tensor:
        """The covariance, [..., D, D]."""
        return torch.diag_embed(self.variance)

    def log_prob_per_dimension(self, value: Tensor) -> Tensor:
        """Return the log-density of each dimension of ``value`` [..., D], as [..., D]."""
        squared_error = (value - self.mean).square()
        return -0.5 * (squared_error / self.variance + self.variance.log() + _LOG_2PI)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the joint log-density of ``value`` [..., D], as [...]."""
        return self.log_prob_per_dimension(value).sum(-1)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, [...]."""
        return 0.5 * (self.variance.log() + _LOG_2PI + 1).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """Return the values that standard normal ``noise`` [..., D] stands for."""
        return self.mean + self.std * noise

    def affine(self, scale: Tensor, shift: Tensor) -> Self:
        """Return the distribution of ``scale * x + shift``; scale [D] is positive."""
        return type(self)(self.mean * scale + shift, self.variance * scale.square())

    def widen(self, std: Tensor) -> Self:
        """Return the distribution of ``x`` plus noise of standard deviation ``std`` [D]."""
        return type(self)(self.mean, self.variance + std.square())


@dataclass(frozen=True)
class FullGaussian(Batched):
    """A normal distribution: mean [..., D], lower Cholesky factor of the covariance [..., D, D]."""

    mean: Tensor
    scale_tril: Tensor

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance, [..., D]."""
        return self.scale_tril.square().sum(-1)

    @property
    def std(self) -> Tensor:
        """The marginal standard deviations, [..., D]."""
        return self.variance.sqrt()

    @property
    def covariance(self) -> Tensor:
        """The covariance, [..., D, D]."""
        return self.scale_tril @ self.scale_tril.mT

    def whiten(self, value: Tensor) -> Tensor:
        """Return ``L⁻¹(value - mean)`` [..., D], standard normal where the model is right."""
        deviation = (value - self.mean).unsqueeze(-1)
        return _solve(self.scale_tril, deviation).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of ``value`` [..., D], as [...]."""
        squared = self.whiten(value).square()
        return -0.5 * (squared + _LOG_2PI).sum(-1) - _half_log_det(self.scale_tril)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, [...]."""
        return 0.5 * (_LOG_2PI + 1) * self.mean.shape[-1] + _half_log_det(self.scale_tril)

    def sample(self, noise: Tensor) -> Tensor:
        """Return the values that standard normal ``noise`` [..., D] stands for."""
        return self.mean + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def affine(self, scale: Tensor, shift: Tensor) -> Self:
        """Return the distribution of ``scale * x + shift``; scale [D] is positive."""
        return type(self)(self.mean * scale + shift, self.scale_tril * scale.unsqueeze(-1))

    def widen(self, std: Tensor) -> Self:
        """Return a Gaussian with the variances of ``x`` plus noise of deviation ``std`` [D].

        The noise is added to each dimension given those before it, and the entries beside the
        diagonal stay; so there always is such a factor.
        """
        factor = self.scale_tril.clone()
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        diagonal.copy_(torch.hypot(diagonal, std))
        return type(self)(self.mean, factor)


Gaussian = DiagonalGaussian | FullGaussian


def kl_divergence(p: Gaussian, q: Gaussian) -> Tensor:
    """Return KL(p ‖ q) in nats, [...], of two Gaussians of one kind."""
    if isinstance(p, FullGaussian) and isinstance(q, FullGaussian):
        ratio = _solve(q.scale_tril, p.scale_tril)
        squares = ratio.square().sum((-2, -1)) + q.whiten(p.mean).square().sum(-1)
        log_ratio = _half_log_det(q.scale_tril) - _half_log_det(p.scale_tril)
        return 0.5 * (squares - p.mean.shape[-1]) + log_ratio
    ratio = p.variance / q.variance
    mahalanobis = (p.mean - q.mean).square() / q.variance
    return 0.5 * (ratio - 1 - ratio.log() + mahalanobis).sum(-1)


def wasserstein(p: Gaussian, q: Gaussian) -> Tensor:
    """Return the squared 2-Wasserstein distance, [...], of two Gaussians of one kind.

    With ``A = LLᵀ`` and ``B = MMᵀ`` the covariances' part is the least ``‖L - MQ‖²`` over
    orthogonal ``Q``, which is the polar factor of ``MᵀL``. At the least, Q's own derivative drops
    out, so it is held constant and repeated eigenvalues harm no gradient.
    """
    means = (p.mean - q.mean).square().sum(-1)
    if isinstance(p, FullGaussian) and isinstance(q, FullGaussian):
        with torch.no_grad():
            # It refuses the whole batch for one sample of NaN, whose distance stays NaN.
            product = (q.scale_tril.mT @ p.scale_tril).nan_to_num(0.0, 0.0, 0.0)
            u, _, vh = torch.linalg.svd(product)
            rotation = u @ vh
        difference: Tensor = p.scale_tril - q.scale_tril @ rotation
        return means + difference.square().sum((-2, -1))
    return means + (p.std - q.std).square().sum(-1)


def _solve(factor: Tensor, right: Tensor) -> Tensor:
    # A deviation of float64 numbers, close to one another, is a float32 number.
    solution: Tensor = torch.linalg.solve_triangular(factor, right.to(factor.dtype), upper=False)
    return solution


def _half_log_det(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
