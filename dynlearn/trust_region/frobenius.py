"""The bound on the covariance by the squared Frobenius norm of its change.

The projection draws the covariance towards the old one in a straight line, so it stays positive
definite. Full covariances are handled by their factors: no difference of two squares is formed
from the squares.

Shapes: D dimensions, ``...`` any batch dimensions; all in float64.
"""

import torch
from torch import Tensor

from dynlearn.distributions.gaussian import FullGaussian, Gaussian
from dynlearn.trust_region.bound import pull, replace_beyond
from dynlearn.trust_region.square_root import lower_root


def distance(new: Gaussian, old: Gaussian) -> Tensor:
    """Return ``‖Σ - Σ_o‖²_F``, [...]."""
    if isinstance(new, FullGaussian) and isinstance(old, FullGaussian):
        return _full_distance(new.scale_tril, old.scale_tril)
    return _diagonal_distance(new.variance, old.variance)


def project(new: Gaussian, old: Gaussian, bound: float) -> Tensor:
    """Return the projected variance [..., D] or Cholesky factor [..., D, D]."""

    def pulled_factor(factor: Tensor, old_factor: Tensor) -> Tensor:
        factor = factor.tril()
        share = (bound / _full_distance(factor, old_factor)).sqrt()[:, None, None]
        # Were the share to round to 1, the root of the rest would have no derivative.
        rest = 1 - share + torch.finfo(share.dtype).tiny
        return lower_root(torch.cat([share.sqrt() * factor, rest.sqrt() * old_factor], -1))

    def pulled_variance(variance: Tensor, old_variance: Tensor) -> Tensor:
        return pull(variance, old_variance, _diagonal_distance(variance, old_variance), bound)

    with torch.no_grad():
        distances = distance(new, old)
    if isinstance(new, FullGaussian) and isinstance(old, FullGaussian):
        factors = new.scale_tril, old.scale_tril
        return replace_beyond(new.scale_tril, distances, bound, pulled_factor, *factors)
    variances = new.variance, old.variance
    return replace_beyond(new.variance, distances, bound, pulled_variance, *variances)


def _diagonal_distance(variance: Tensor, old_variance: Tensor) -> Tensor:
    return (variance - old_variance).square().sum(-1)


def _full_distance(factor: Tensor, old_factor: Tensor) -> Tensor:
    # LLᵀ - MMᵀ is the symmetric part of (L - M)(L + M)ᵀ.
    product = (factor - old_factor) @ (factor + old_factor).mT
    return (0.5 * (product + product.mT)).square().sum((-2, -1))
