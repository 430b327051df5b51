"""Losses whose gradient is weighted with the predicted covariance to the power β.

The weight is held constant. Shapes: D targets, ``...`` any batch dimensions.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, Gaussian, kl_divergence

_LOG_2PI = math.log(2 * math.pi)


def weighted_nll(prediction: Gaussian, target: Tensor, beta: float) -> Tensor:
    """Return the NLL [...] of ``target`` [..., D], its gradient weighted.

    On a diagonal the NLL of each dimension is multiplied by its predicted variance to the power β
    (Seitzer et al. 2022, equation 5); with full covariance see `with_weighted_gradient`.
    """
    if isinstance(prediction, DiagonalGaussian):
        return _weighted_nll(prediction, target, None, _LOG_2PI, beta)
    nll = -prediction.log_prob(target)
    if beta == 0:
        return nll
    spread = torch.zeros_like(prediction.scale_tril)
    return with_weighted_gradient(nll, prediction, prediction.mean - target, spread, beta)


def weighted_divergence(goal: Gaussian, prediction: Gaussian, beta: float) -> Tensor:
    """Return KL(goal ‖ prediction) [...], its gradient in the prediction weighted as the NLL's.

    Both are of one kind.
    """
    if isinstance(prediction, DiagonalGaussian):
        negative_entropy = -1 - goal.variance.log()
        return _weighted_nll(prediction, goal.mean, goal.variance, negative_entropy, beta)
    divergence = kl_divergence(goal, prediction)
    if beta == 0:
        return divergence
    assert isinstance(goal, FullGaussian)
    error = prediction.mean - goal.mean
    return with_weighted_gradient(divergence, prediction, error, goal.scale_tril, beta)


def _weighted_nll(
    prediction: DiagonalGaussian,
    target: Tensor,
    spread: Tensor | None,
    constant: Tensor | float,
    beta: float,
) -> Tensor:
    loss: Tensor = _WeightedNLL.apply(  # type: ignore[no-untyped-call]
        prediction.mean, prediction.variance, target, spread, constant, beta
    )
    return loss


class _WeightedNLL(torch.autograd.Function):
    """``½ Σ_d v^β ((e² + s) / v + log v + c)`` with ``v^β`` held constant, e = mean - target.

    The gradients are found along with the value, in half the operations that autograd takes: on
    tensors of this size each costs more than its arithmetic.
    """

    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        variance: Tensor,
        target: Tensor,
        spread: Tensor | None,
        constant: Tensor | float,
        beta: float,
    ) -> Tensor:
        error = mean - target
        squares = error.square()
        if spread is not None:
            squares += spread
        weight = variance.reciprocal()
        ratio = squares.mul_(weight)
        value = variance.log().add_(ratio).add_(constant)
        if beta:
            power = variance.pow(beta)
            value.mul_(power)
            weight.mul_(power)
        ctx.save_for_backward(error.mul_(weight), torch.rsub(ratio, 1).mul_(weight))
        return 0.5 * value.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_mean, by_twice_variance = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        return gradient * by_mean, 0.5 * gradient * by_twice_variance, None, None, None, None


def with_weighted_gradient(
    loss: Tensor, prediction: FullGaussian, error: Tensor, spread: Tensor, beta: float
) -> Tensor:
    """Return ``loss`` with the gradients ``Σ^β ∂μ`` and ``Σ^{β/2} ∂Σ Σ^{β/2}`` in place of its own.

    The loss is the expected NLL, but for constants, of values around the prediction: its gradients
    are ``∂μ = Σ⁻¹e`` and ``∂Σ = ½(Σ⁻¹ - Σ⁻¹(eeᵀ + SSᵀ)Σ⁻¹)``.

    Args:
        loss: [...].
        prediction: [..., D].
        error: e, the prediction's mean less the values' [..., D].
        spread: S, a root of the values' covariance [..., D, D].
        beta: the exponent.
    """
    with torch.no_grad():
        # In float64: squaring a factor squares its condition number.
        factor = prediction.scale_tril.double()
        # It refuses the whole batch for one sample of NaN, whose gradient stays NaN.
        eigenvalues, basis = torch.linalg.eigh((factor @ factor.mT).nan_to_num(0.0, 0.0, 0.0))
        # Below the rounding of the largest, an eigenvalue is noise and a power of it anything.
        least = torch.finfo(torch.float64).eps * eigenvalues[..., -1:]
        eigenvalues = eigenvalues.maximum(least).unsqueeze(-1)
        rotated = basis.mT @ torch.cat((error.unsqueeze(-1), spread), -1).double()
        mean_gradient = basis @ (eigenvalues.pow(beta - 1) * rotated[..., :1])
        scaled = eigenvalues.pow(beta / 2 - 1) * rotated
        inner = torch.diag_embed(eigenvalues.squeeze(-1).pow(beta - 1)) - scaled @ scaled.mT
        # ∂Σ is half of the inner matrix, and ∂L is 2 ∂Σ L.
        factor_gradient = basis @ inner @ basis.mT @ factor
    surrogate = (mean_gradient.squeeze(-1).to(loss) * prediction.mean).sum(-1)
    surrogate = surrogate + (factor_gradient.to(loss) * prediction.scale_tril).sum((-2, -1))
    weighted: Tensor = loss.detach() + (surrogate - surrogate.detach())
    return weighted
