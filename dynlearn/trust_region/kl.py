"""The bound on the covariance by its part of KL(new ‖ old).

The projection is the covariance nearest to the new one, in ``KL(· ‖ new)``, whose KL to the old
one is the bound. Its precision mixes both precisions, ``Σ̃⁻¹ = t Σ⁻¹ + (1 - t) Σ_o⁻¹``, with the
one weight t in (0, 1] that meets the bound. Where κ are the eigenvalues of ``Σ_o⁻¹ Σ`` and
``q = 1/κ - 1``, those of ``Σ_o⁻¹ Σ̃`` are ``κ̃ = 1 / (1 + t q)``, and the bound reads
``½ Σ (κ̃ - 1 - ln κ̃) = ε``: one equation in t for each sample.

Shapes: D dimensions, ``...`` any batch dimensions, n samples; all in float64.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dynlearn.distributions.gaussian import FullGaussian, Gaussian
from dynlearn.trust_region.bound import replace_beyond
from dynlearn.trust_region.square_root import lower_root

_NEWTON_STEPS = 13
_CLOSE = 1e-8
_TINY = torch.finfo(torch.float64).tiny


def distance(new: Gaussian, old: Gaussian) -> Tensor:
    """Return ``½ (tr Σ_o⁻¹ Σ - D + ln |Σ_o| - ln |Σ|)``, [...]."""
    if isinstance(new, FullGaussian) and isinstance(old, FullGaussian):
        ratio: Tensor = torch.linalg.solve_triangular(old.scale_tril, new.scale_tril, upper=False)
        diagonal = ratio.diagonal(dim1=-2, dim2=-1)
        part = _divergence(diagonal.square(), (diagonal - 1) * (diagonal + 1))
        return 0.5 * (part.sum(-1) + ratio.tril(-1).square().sum((-2, -1)))
    change = (new.variance - old.variance) / old.variance
    return 0.5 * _divergence(new.variance / old.variance, change).sum(-1)


def _divergence(ratio: Tensor, change: Tensor) -> Tensor:
    """Return ``κ - 1 - ln κ`` of a ratio κ and ``κ - 1``, each exact where the other is not."""
    return change - torch.where(change.abs() < 0.5, change.log1p(), ratio.log())


def project(new: Gaussian, old: Gaussian, bound: float) -> Tensor:
    """Return the projected variance [..., D] or Cholesky factor [..., D, D]."""

    def pulled_factor(factor: Tensor, old_factor: Tensor) -> Tensor:
        ratio = torch.linalg.solve_triangular(old_factor, factor.tril(), upper=False)
        root: Tensor = _PulledRoot.apply(ratio, bound)  # type: ignore[no-untyped-call]
        return old_factor @ lower_root(root)

    def pulled_variance(variance: Tensor, old_variance: Tensor) -> Tensor:
        pulled: Tensor = _PulledVariance.apply(  # type: ignore[no-untyped-call]
            variance, old_variance, bound
        )
        return pulled

    with torch.no_grad():
        distances = distance(new, old)
    if isinstance(new, FullGaussian) and isinstance(old, FullGaussian):
        factors = new.scale_tril, old.scale_tril
        return replace_beyond(new.scale_tril, distances, bound, pulled_factor, *factors)
    variances = new.variance, old.variance
    return replace_beyond(new.variance, distances, bound, pulled_variance, *variances)


def _weight(excess: Tensor, bound: float) -> Tensor:
    """Return the t [n, 1] that meets the bound, of samples beyond it with these q [n, D].

    The KL is a convex function of ln t, so Newton's method descends to the root from any start
    at which the KL exceeds the bound. Such a start is the t at which one eigenvalue alone is sure
    to: where ``|ln κ̃|`` reaches ``2√ε + 2ε`` by shrinking, or ``ln(1 + 2√ε + 2ε)`` by growing.
    """
    reach = 2 * math.sqrt(bound) + 2 * bound
    shrinking = math.expm1(min(reach, 700)) / excess.amax(-1, keepdim=True).clamp(min=_TINY)
    growing = reach / (1 + reach) / excess.amin(-1, keepdim=True).neg().clamp(min=_TINY)
    weight = torch.minimum(shrinking, growing).clamp(max=1)
    for _ in range(_NEWTON_STEPS):
        mixed = weight * excess
        share = mixed / (1 + mixed)
        twice_kl = (mixed.log1p() - share).sum(-1, keepdim=True)
        slope = share.square().sum(-1, keepdim=True).clamp(min=_TINY)
        weight = (weight * ((2 * bound - twice_kl) / slope).exp()).clamp(max=1)
        # A GPU's host would have to wait to know it.
        if not weight.is_cuda and not (twice_kl > (2 + _CLOSE) * bound).any():
            break
    return weight


def _within_bound(gradient: Tensor, excess: Tensor, ratio: Tensor) -> Tensor:
    """Return the gradient by κ̃ [n, D] less its part across the surface that the bound fixes."""
    normal = ratio.square() * excess
    along = (gradient * normal).sum(-1, keepdim=True)
    return gradient - along / (normal * excess).sum(-1, keepdim=True).clamp(min=_TINY) * excess


class _PulledVariance(torch.autograd.Function):
    """The projected variance [n, D] of variance and old variance [n, D]."""

    @staticmethod
    def forward(ctx: Any, variance: Tensor, old_variance: Tensor, bound: float) -> Tensor:
        excess = (old_variance - variance) / variance
        weight = _weight(excess, bound)
        ratio = 1 / (1 + weight * excess)
        ctx.save_for_backward(variance, old_variance, excess, weight, ratio)
        return old_variance * ratio

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        variance, old_variance, excess, weight, ratio = ctx.saved_tensors
        within = _within_bound(gradient * old_variance, excess, ratio)
        # dκ̃ = t (κ̃ / κ)² dκ at a fixed t.
        by_variance = weight * (ratio * old_variance / variance).square() * within / old_variance
        return by_variance, None, None


class _PulledRoot(torch.autograd.Function):
    """A root W of the projected ratio ``W Wᵀ = L_o⁻¹ Σ̃ L_o⁻ᵀ``, [n, D, D], of ``R = L_o⁻¹ L``.

    Only ``W Wᵀ`` is a differentiable function of R; what is made of W must be one of ``W Wᵀ``.
    """

    @staticmethod
    def forward(ctx: Any, root: Tensor, bound: float) -> Tensor:
        basis, scales, right = torch.linalg.svd(root)
        inverse = scales.clamp(min=1e-150).square().reciprocal()
        excess = inverse - 1
        weight = _weight(excess, bound)
        ratio = 1 / (1 + weight * excess)
        ctx.save_for_backward(basis, scales, right, inverse, excess, weight, ratio)
        pulled: Tensor = basis * ratio.sqrt().unsqueeze(-2)
        return pulled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        basis, scales, right, inverse, excess, weight, ratio = ctx.saved_tensors
        # By K̃ = W Wᵀ in the eigenbasis, where ∂W = 2 ∂K̃ W.
        by_ratio = 0.5 * (basis.mT @ gradient) / ratio.sqrt().unsqueeze(-2)
        diagonal = by_ratio.diagonal(dim1=-2, dim2=-1)
        within = by_ratio + torch.diag_embed(_within_bound(diagonal, excess, ratio) - diagonal)
        # dK̃ = t (κ̃_i / κ_i) (κ̃_j / κ_j) dK_ij at a fixed t, and dK = dR Rᵀ + R dRᵀ.
        relative = ratio * inverse
        left = weight * relative
        by_root = left.unsqueeze(-1) * within * (relative * scales).unsqueeze(-2)
        return 2 * basis @ by_root @ right, None
