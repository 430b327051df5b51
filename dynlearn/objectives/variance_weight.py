"""Losses whose gradient is weighted with the predicted covariance to the power β.

The weight is held constant. Shapes: D targets, ``...`` any batch dimensions.
"""

import torch
from torch import Tensor

from dynlearn.gaussian import FullGaussian, Gaussian, kl_divergence


def weighted_divergence(goal: Gaussian, prediction: Gaussian, beta: float) -> Tensor:
    """Return KL(goal ‖ prediction) [...], its gradient in the prediction weighted.

    On a diagonal the divergence of each dimension is multiplied by its predicted variance to the
    power β; with full covariance see `with_weighted_gradient`.
    """
    if isinstance(prediction, FullGaussian) and isinstance(goal, FullGaussian):
        divergence = kl_divergence(goal, prediction)
        if beta == 0:
            return divergence
        error = prediction.mean - goal.mean
        return with_weighted_gradient(divergence, prediction, error, goal.scale_tril, beta)
    ratio = goal.variance / prediction.variance
    squared_error = (prediction.mean - goal.mean).square() / prediction.variance
    weight = prediction.variance.detach().pow(beta) if beta else 1.0
    return 0.5 * (weight * (ratio - 1 - ratio.log() + squared_error)).sum(-1)


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
