"""The bound on the mean: its squared distance to the old mean, by Mahalanobis or Euclid.

Shapes: D dimensions, ``...`` any batch dimensions; all in float64.
"""

import torch
from torch import Tensor

from dynlearn.distributions.gaussian import FullGaussian, Gaussian
from dynlearn.trust_region.bound import pull, replace_beyond


def distance(mean: Tensor, old: Gaussian, *, scaled: bool) -> Tensor:
    """Return ``(μ - μ_o)ᵀ Σ_o⁻¹ (μ - μ_o)``, [...], or without ``Σ_o`` where not ``scaled``."""
    deviation = mean - old.mean
    if not scaled:
        return deviation.square().sum(-1)
    if isinstance(old, FullGaussian):
        return old.whiten(mean).square().sum(-1)
    return (deviation.square() / old.variance).sum(-1)


def project(mean: Tensor, old: Gaussian, bound: float, *, scaled: bool) -> Tensor:
    """Return the mean on the way from the old one to ``mean`` that keeps the bound, [..., D]."""
    scale = old.scale_tril if isinstance(old, FullGaussian) else old.variance

    def pulled(mean: Tensor, old_mean: Tensor, old_scale: Tensor) -> Tensor:
        its_distance = distance(mean, type(old)(old_mean, old_scale), scaled=scaled)
        return pull(mean, old_mean, its_distance, bound)

    with torch.no_grad():
        distances = distance(mean, old, scaled=scaled)
    return replace_beyond(mean, distances, bound, pulled, mean, old.mean, scale)
