"""Steps of the methods of A.1 of the Trustable paper, on a batch of free Gaussians.

Gradient descent (SGD, Adam, Pitfalls) moves the mean and the covariance's numbers. The
second-order methods take a step in local coordinates (δ, X) about the current Gaussian with the
root L, ``μ + Lδ`` and ``L · growth(X)``, where they have a closed form: with the whitened errors'
mean e and second moment S, the NLL's gradient there is ``(-e, I - S)`` and the Fisher information
``(I, 2 I)``. They differ in how long the step is, and in S's eigenbasis all are products.

TRPL and Trustable are a gradient's and a tractable natural gradient's step that a trust region
projects. The parameters are set to the projection, so none need be differentiated through.

Shapes: N instances, D dimensions.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gaussian_fits.cases import Moments
from benchmarks.gaussian_fits.parametrisations import Parametrisation, Spectrum, eigenvalues
from dynlearn.distributions.gaussian import FullGaussian
from dynlearn.trust_region import TrustRegion
from dynlearn.trust_region.square_root import lower_root

_ADAM_EPSILON = 1e-7
_RIDGE = 1e-7

Step = Callable[[FullGaussian, Moments], FullGaussian]
LocalStep = Callable[[Tensor, Tensor, Parametrisation], tuple[Tensor, Tensor]]


class Fit:
    """Gaussians on their way to the truth; one that is no longer finite stays where it was.

    Attributes:
        gaussian: the current ones, [N].
        diverged: which ones are lost, [N].
    """

    def __init__(self, initial: FullGaussian, step: Step, region: TrustRegion | None = None):
        self.gaussian = initial
        self.diverged = torch.zeros(len(initial.mean), dtype=torch.bool)
        self._step = step
        self._region = region

    def run(self, minibatches: Iterable[Moments]) -> None:
        """Take a step for each minibatch, within the trust region about the present Gaussians."""
        old = self.gaussian
        for moments in minibatches:
            new = self._step(self.gaussian, moments)
            if self._region is not None:
                projected = self._region.project(new, old)
                assert isinstance(projected, FullGaussian)
                new = projected
            self.diverged |= ~_is_finite(new)
            diverged = self.diverged
            self.gaussian = FullGaussian(
                torch.where(diverged[:, None], self.gaussian.mean, new.mean),
                torch.where(diverged[:, None, None], self.gaussian.scale_tril, new.scale_tril),
            )


def _is_finite(gaussian: FullGaussian) -> Tensor:
    diagonal = gaussian.scale_tril.diagonal(dim1=-2, dim2=-1)
    finite = gaussian.mean.isfinite() & gaussian.scale_tril.isfinite().all(-1) & (diagonal > 0)
    return finite.all(-1)


@dataclass(frozen=True)
class GradientDescent:
    """Gradient descent on the NLL, or with β on Pitfalls's weighting of its gradient.

    Pitfalls multiplies the gradient by μ by ``Σ^β``, and the one by Σ by ``Σ^(β/2)`` on both
    sides (A.1).
    """

    parametrisation: Parametrisation
    rate: float
    beta: float = 0.0

    def __call__(self, gaussian: FullGaussian, moments: Moments) -> FullGaussian:
        """Return the Gaussians after one step."""
        numbers = self.parametrisation.numbers(gaussian.scale_tril)
        by_mean, by_numbers = gradients(gaussian, moments, numbers, self.parametrisation, self.beta)
        factor = self.parametrisation.factor(numbers - self.rate * by_numbers)
        return FullGaussian(gaussian.mean - self.rate * by_mean, factor)


class Adam:
    """Adam on the mean and the covariance's numbers, which it keeps with its own moments."""

    def __init__(self, initial: FullGaussian, parametrisation: Parametrisation, rate: float):
        self._parametrisation = parametrisation
        self._mean = initial.mean.clone()
        self._numbers = parametrisation.numbers(initial.scale_tril).clone()
        self._adam = torch.optim.Adam([self._mean, self._numbers], rate, eps=_ADAM_EPSILON)

    def __call__(self, gaussian: FullGaussian, moments: Moments) -> FullGaussian:
        """Return the Gaussians after one step; ``gaussian`` is what the last call returned."""
        self._mean.grad, self._numbers.grad = gradients(
            gaussian, moments, self._numbers, self._parametrisation
        )
        self._adam.step()
        return FullGaussian(self._mean.clone(), self._parametrisation.factor(self._numbers))


def gradients(
    gaussian: FullGaussian,
    moments: Moments,
    numbers: Tensor,
    parametrisation: Parametrisation,
    beta: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return the minibatch's mean NLL gradient by μ [N, D] and by the numbers [N, D, D]."""
    spectrum = Spectrum.of_root(gaussian.scale_tril)
    basis, scales = spectrum.basis, spectrum.scales
    error, second = _whitened(moments, gaussian.mean, basis.mT / scales.unsqueeze(-1))
    by_mean = -(basis @ (scales ** (2 * beta - 1) * error).unsqueeze(-1)).squeeze(-1)
    pairs = scales.unsqueeze(-1) * scales.unsqueeze(-2)
    by_covariance = 0.5 * (torch.eye(scales.shape[-1]) - second) * pairs ** (beta - 1)
    return by_mean, parametrisation.gradient(numbers, spectrum, by_covariance)


@dataclass(frozen=True)
class LocalDescent:
    """A second-order method: a step in the local coordinates of the current Gaussians.

    Attributes:
        parametrisation: what X makes of the root.
        local_step: δ [N, D] and X's eigenvalues [N, D] in S's eigenbasis, from e and S's
            eigenvalues there.
    """

    parametrisation: Parametrisation
    local_step: LocalStep

    def __call__(self, gaussian: FullGaussian, moments: Moments) -> FullGaussian:
        """Return the Gaussians after one step."""
        factor = gaussian.scale_tril
        identity = torch.eye(factor.shape[-1], dtype=factor.dtype).expand_as(factor)
        whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
        error, second = _whitened(moments, gaussian.mean, whitening)
        values, basis = eigenvalues(second)
        root = factor @ basis
        error = (basis.mT @ error.unsqueeze(-1)).squeeze(-1)
        shift, growth = self.local_step(error, values, self.parametrisation)
        mean = gaussian.mean + (root @ shift.unsqueeze(-1)).squeeze(-1)
        grown = root * self.parametrisation.growth(growth).unsqueeze(-2)
        return FullGaussian(mean, lower_root(grown))


def tractable(rate: float) -> LocalStep:
    """Return the natural gradient's step of a fixed rate (Lin et al. 2021)."""

    def step(error: Tensor, second: Tensor, _: Parametrisation) -> tuple[Tensor, Tensor]:
        return rate * error, 0.5 * rate * (second - 1)

    return step


def natural_gradient(bound: float) -> LocalStep:
    """Return the natural gradient's step whose KL is the bound to second order, as in TRPO."""

    def step(error: Tensor, second: Tensor, _: Parametrisation) -> tuple[Tensor, Tensor]:
        squared_length = (error.square() + 0.5 * (second - 1).square()).sum(-1, keepdim=True)
        length = (2 * bound / squared_length).sqrt()
        return length * error, 0.5 * length * (second - 1)

    return step


def gauss_newton(rate: float) -> LocalStep:
    """Return Newton's step by blocks, as ``H x = g`` solved by regularised least squares.

    Where an eigenvalue of the Hessian is negative, the step goes up to the saddle.
    """

    def step(
        error: Tensor, second: Tensor, parametrisation: Parametrisation
    ) -> tuple[Tensor, Tensor]:
        curvature = parametrisation.curvature(second)
        growth = curvature / (curvature.square() + _RIDGE) * (second - 1)
        return rate / (1 + _RIDGE) * error, rate * growth

    return step


def _whitened(moments: Moments, mean: Tensor, whitening: Tensor) -> tuple[Tensor, Tensor]:
    """Return the whitened errors' mean [N, D] and second moment about zero [N, D, D]."""
    error = (whitening @ (moments.mean - mean).unsqueeze(-1)).squeeze(-1)
    spread = whitening @ moments.covariance @ whitening.mT
    return error, spread + error.unsqueeze(-1) * error.unsqueeze(-2)
