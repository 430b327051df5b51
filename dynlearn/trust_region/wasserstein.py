"""The bound on the covariance by the 2-Wasserstein distance of covariances taken to commute.

With the symmetric roots S and S_o the distance is ``‖S - S_o‖²_F``, or ``‖S S_o⁻¹ - I‖²_F`` in
units of the old scale; in both the projection draws S towards S_o in a straight line. On one
dimension and in units of the old scale the bound ε keeps the standard deviation within
``1 ± √ε`` times the old one. A shrinkage alone has a distance below D, so a bound of D or more
limits no shrinkage.

Shapes: D dimensions, ``...`` any batch dimensions; all in float64.
"""

import torch
from torch import Tensor

from dynlearn.distributions.gaussian import FullGaussian, Gaussian
from dynlearn.trust_region.bound import pull, replace_beyond
from dynlearn.trust_region.square_root import lower_root, symmetric_root


def distance(new: Gaussian, old: Gaussian, *, scaled: bool) -> Tensor:
    """Return ``‖S S_o⁻¹ - I‖²_F``, [...], or ``‖S - S_o‖²_F`` where not ``scaled``."""
    if isinstance(new, FullGaussian) and isinstance(old, FullGaussian):
        old_root = symmetric_root(old.scale_tril)
        inverse = _inverse(old_root, scaled=scaled)
        return _full_distance(symmetric_root(new.scale_tril), old_root, inverse)
    unit = old.variance if scaled else torch.ones_like(old.variance)
    return _diagonal_distance(new.std, old.std, unit)


def project(new: Gaussian, old: Gaussian, bound: float, *, scaled: bool) -> Tensor:
    """Return the projected variance [..., D] or Cholesky factor [..., D, D]."""

    def pulled_factor(root: Tensor, old_root: Tensor, inverse: Tensor) -> Tensor:
        distances = _full_distance(root, old_root, inverse)
        return lower_root(pull(root, old_root, distances, bound))

    def pulled_variance(variance: Tensor, old_variance: Tensor, unit: Tensor) -> Tensor:
        std, old_std = variance.sqrt(), old_variance.sqrt()
        return pull(std, old_std, _diagonal_distance(std, old_std, unit), bound).square()

    if isinstance(new, FullGaussian) and isinstance(old, FullGaussian):
        root = symmetric_root(new.scale_tril.tril())
        old_root = symmetric_root(old.scale_tril)
        roots = root, old_root, _inverse(old_root, scaled=scaled)
        distances = _full_distance(root.detach(), *roots[1:])
        return replace_beyond(new.scale_tril, distances, bound, pulled_factor, *roots)
    unit = old.variance if scaled else torch.ones_like(old.variance)
    with torch.no_grad():
        distances = _diagonal_distance(new.std, old.std, unit)
    variances = new.variance, old.variance, unit
    return replace_beyond(new.variance, distances, bound, pulled_variance, *variances)


def _diagonal_distance(std: Tensor, old_std: Tensor, unit: Tensor) -> Tensor:
    return ((std - old_std).square() / unit).sum(-1)


def _full_distance(root: Tensor, old_root: Tensor, inverse: Tensor) -> Tensor:
    return ((root - old_root) @ inverse).square().sum((-2, -1))


def _inverse(old_root: Tensor, *, scaled: bool) -> Tensor:
    if not scaled:
        identity = torch.eye(old_root.shape[-1], dtype=old_root.dtype, device=old_root.device)
        return identity.expand_as(old_root)
    # `inv` would refuse the whole batch for one singular sample.
    inverse: Tensor = torch.linalg.inv_ex(old_root).inverse
    return inverse
