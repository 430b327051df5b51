"""One natural-gradient step of the NLL, in closed form.

Shapes: D targets, ``...`` any batch dimensions.
"""

import torch
from torch import Tensor

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, Gaussian


def natural_gradient_step(gaussian: Gaussian, value: Tensor, step: float) -> Gaussian:
    """Return the Gaussian one natural-gradient step of the NLL of ``value`` away.

    With ``Σ = LLᵀ`` and ``z = L⁻¹(y - μ)`` the step moves μ by ``step · (y - μ)`` and L to
    ``L · E(step/2 · (zzᵀ - I))``, where ``E(x) = 1 + x + x²/2`` stands for the exponential: its
    eigenvalues are positive for every step up to one, so the covariance stays positive definite.

    Args:
        gaussian: [..., D].
        value: [..., D].
        step: between 0 and 1.
    """
    if isinstance(gaussian, DiagonalGaussian):
        error = value - gaussian.mean
        growth = _exponential(0.5 * step * (error.square() / gaussian.variance - 1))
        return DiagonalGaussian(gaussian.mean + step * error, gaussian.variance * growth.square())
    z = gaussian.whiten(value)
    squared_norm = z.square().sum(-1, keepdim=True)
    across = _exponential(torch.full_like(squared_norm, -0.5 * step))
    along = _exponential(0.5 * step * (squared_norm - 1))
    # E² = across² (I + excess zzᵀ).
    growth = (along / across).square() - 1
    excess = growth / squared_norm.clamp(min=torch.finfo(z.dtype).tiny)
    factor = across.unsqueeze(-1) * _rank_one_factor(z, excess)
    mean = gaussian.mean + step * (value - gaussian.mean)
    return FullGaussian(mean, gaussian.scale_tril @ factor)


def _rank_one_factor(vector: Tensor, weight: Tensor) -> Tensor:
    """Return the Cholesky factor [..., D, D] of ``I + weight · vector vectorᵀ``.

    In closed form from cumulative sums, hence with a positive diagonal at every magnitude.
    """
    after = 1 + weight * vector.square().cumsum(-1)
    before = torch.cat((torch.ones_like(weight), after[..., :-1]), -1)
    column = weight * vector / (after * before).sqrt()
    below = torch.tril(vector.unsqueeze(-1) * column.unsqueeze(-2), -1)
    return below + torch.diag_embed((after / before).sqrt())


def _exponential(exponent: Tensor) -> Tensor:
    return 1 + exponent + 0.5 * exponent.square()
