"""Square roots of covariances that can be differentiated wherever the covariance is definite.

Each is taken from another root, never from the covariance itself, whose condition number is the
square of its root's; and each has its gradient in closed form, which repeated eigenvalues do not
harm, as they do harm the gradient of an eigendecomposition.

Shapes: D dimensions, N ≥ D columns, ``...`` any batch dimensions.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def symmetric_root(root: Tensor) -> Tensor:
    """Return the symmetric S with ``S S = root rootᵀ``, [..., D, D], from a square root of it.

    A sample that is not finite gives NaN and does no harm to the others.
    """
    symmetric: Tensor = _SymmetricRoot.apply(root)  # type: ignore[no-untyped-call]
    return symmetric


def lower_root(root: Tensor) -> Tensor:
    """Return the lower-triangular L with ``L Lᵀ = root rootᵀ``, its diagonal positive.

    Args:
        root: of full row rank, [..., D, N].
    """
    lower: Tensor = _LowerRoot.apply(root)  # type: ignore[no-untyped-call]
    return lower


class _SymmetricRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, root: Tensor) -> Tensor:
        # A decomposition refuses the whole batch when one sample is not finite.
        finite = root.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
        identity = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
        basis, eigenvalues, right = torch.linalg.svd(torch.where(finite, root, identity))
        ctx.save_for_backward(basis, eigenvalues, right)
        symmetric = (basis * eigenvalues.unsqueeze(-2)) @ basis.mT
        return torch.where(finite, symmetric, torch.nan)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # S dS + dS S = d(root rootᵀ), whose adjoint equation is the same one: in the eigenbasis
        # a division by the sum of two eigenvalues.
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        basis, eigenvalues, right = saved
        sums = eigenvalues.unsqueeze(-1) + eigenvalues.unsqueeze(-2)
        share = eigenvalues.unsqueeze(-2) / sums.clamp(min=torch.finfo(sums.dtype).tiny)
        return basis @ (basis.mT @ (gradient + gradient.mT) @ basis * share) @ right


class _LowerRoot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, root: Tensor) -> Tensor:
        rotation, upper = torch.linalg.qr(root.mT)
        negative = upper.diagonal(dim1=-2, dim2=-1) < 0
        sign = torch.where(negative, -1.0, 1.0).to(root.dtype).unsqueeze(-2)
        lower: Tensor = upper.mT * sign
        ctx.save_for_backward(lower, rotation * sign)
        return lower

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Of ``A = L Lᵀ``: ∂A = ½ L⁻ᵀ symmetric L⁻¹, and ∂root = 2 ∂A root, where root = L Qᵀ.
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        lower, rotation = saved
        product = lower.mT @ gradient
        symmetric = product.tril() + product.tril(-1).mT
        by_root: Tensor = torch.linalg.solve_triangular(
            lower.mT, symmetric @ rotation.mT, upper=True
        )
        return by_root
