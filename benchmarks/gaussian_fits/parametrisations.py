"""Two ways to write a covariance as free numbers: by its square root and by its logarithm.

Gradient descent acts on the numbers. Second-order methods act on local coordinates instead, a
symmetric X that is zero at the current covariance ``LLᵀ``: there a parametrisation says what X
makes of the root L.

Shapes: N instances, D dimensions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dynlearn.trust_region.square_root import lower_root


@dataclass(frozen=True)
class Spectrum:
    """A covariance ``basis diag(scales²) basisᵀ``: [N, D, D] and [N, D]."""

    basis: Tensor
    scales: Tensor

    @classmethod
    def of_root(cls, root: Tensor) -> "Spectrum":
        """Return the spectrum of ``root rootᵀ`` [N, D, D]; NaN where it is not finite."""
        finite = root.isfinite().all(-1).all(-1)
        basis, scales, _ = torch.linalg.svd(_or_identity(root, finite))
        return cls(basis, torch.where(finite.unsqueeze(-1), scales, torch.nan))

    def matrix(self, values: Tensor) -> Tensor:
        """Return the symmetric matrix of eigenvalues [N, D], or of an array [N, D, D], in it."""
        inside = values if values.ndim == self.basis.ndim else torch.diag_embed(values)
        return self.basis @ inside @ self.basis.mT


@dataclass(frozen=True)
class Parametrisation:
    """What a covariance's free numbers are, and what they do to gradients and steps.

    Attributes:
        numbers: of a lower Cholesky factor; both [N, D, D].
        factor: the lower Cholesky factor with a positive diagonal, of the numbers.
        gradient: by the numbers, from the numbers, the spectrum and the gradient by the
            covariance in the spectrum's basis.
        growth: the factor of a root's eigenvalue along a direction of X, of X's eigenvalue.
        curvature: the NLL's second derivative along X, of an eigenvalue of the samples'
            whitened second moment.
    """

    numbers: Callable[[Tensor], Tensor]
    factor: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor, Spectrum, Tensor], Tensor]
    growth: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]


def eigenvalues(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues [N, D] and basis of symmetric matrices; NaN where one is not finite."""
    finite = matrix.isfinite().all(-1).all(-1)
    values, basis = torch.linalg.eigh(_or_identity(matrix, finite))
    return torch.where(finite.unsqueeze(-1), values, torch.nan), basis


def _or_identity(matrix: Tensor, finite: Tensor) -> Tensor:
    # A decomposition refuses the whole batch for one instance that has diverged.
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    return torch.where(finite[:, None, None], matrix, identity)


def _positive_diagonal(factor: Tensor) -> Tensor:
    negative = factor.diagonal(dim1=-2, dim2=-1) < 0
    return factor * torch.where(negative, -1.0, 1.0).to(factor.dtype).unsqueeze(-2)


def _root_gradient(factor: Tensor, spectrum: Spectrum, by_covariance: Tensor) -> Tensor:
    return (2 * spectrum.matrix(by_covariance) @ factor).tril()


def _logarithm(factor: Tensor) -> Tensor:
    spectrum = Spectrum.of_root(factor)
    return spectrum.matrix(2 * spectrum.scales.log())


def _exponential(logarithm: Tensor) -> Tensor:
    values, basis = eigenvalues(logarithm)
    return lower_root(basis * (0.5 * values).exp().unsqueeze(-2))


def _logarithm_gradient(_: Tensor, spectrum: Spectrum, by_covariance: Tensor) -> Tensor:
    # Daleckii and Krein: (λ_i - λ_j) / (ln λ_i - ln λ_j), written without the difference.
    scales = spectrum.scales
    half_ratio = scales.log().unsqueeze(-1) - scales.log().unsqueeze(-2)
    slope = torch.where(half_ratio == 0, 1.0, half_ratio.sinh() / half_ratio)
    return spectrum.matrix(by_covariance * slope * scales.unsqueeze(-1) * scales.unsqueeze(-2))


def _moderate_exponential(x: Tensor) -> Tensor:
    # A first step in Case II has x in the hundreds, where the exponential leaves float64. The
    # library takes this second order of it everywhere, which is the same for the steps it takes.
    return torch.where(x > 0, 1 + x + 0.5 * x.square(), x.exp())


SQUARE_ROOT = Parametrisation(
    numbers=lambda factor: factor,
    factor=_positive_diagonal,
    gradient=_root_gradient,
    growth=lambda x: 1 + x,
    curvature=lambda moment: 3 * moment - 1,
)
LOGARITHM = Parametrisation(
    numbers=_logarithm,
    factor=_exponential,
    gradient=_logarithm_gradient,
    growth=_moderate_exponential,
    curvature=lambda moment: 2 * moment,
)
PARAMETRISATIONS = {"square root": SQUARE_ROOT, "logarithm": LOGARITHM}
