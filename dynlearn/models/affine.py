"""The members' affine maps, by whichever of torch's two libraries is faster on this processor.

Float32 products on a CPU go to MKL, which leaves much of some makers' processors unused; there
oneDNN, which has no batched product in torch, is faster even with one call a member.

Shapes: E members, B batch, I inputs, D outputs.
"""

import time
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# By less than this, measured on a busy machine, one is not taken for the faster: which it is
# decides the last digits of every result.
_MARGIN = 1.25
_ROUNDS = 20


def members_affine(
    bias: Tensor, inputs: Tensor, weight: Tensor, with_onednn: bool, out: Tensor | None = None
) -> Tensor:
    """Map inputs [E, B, I] with weights [E, I, D] and biases [E, 1, D] to [E, B, D].

    Args:
        bias: added to every row.
        inputs: of each member.
        weight: of each member.
        with_onednn: whether to leave to oneDNN what it can do, float32 on a CPU.
        out: where the result may be written, [E, B, D] in float32; without a gradient.

    Returns:
        In the dtype of the weights, but where autocast is to choose it.
    """
    device = inputs.device.type
    if torch.is_autocast_enabled(device):
        return torch.baddbmm(bias, inputs, weight)
    inputs = inputs.to(weight.dtype)
    if device != "cpu" or weight.dtype != torch.float32:
        return torch.baddbmm(bias, inputs, weight)
    if with_onednn:
        mapped: Tensor = _OneDNN.apply(bias, inputs, weight)  # type: ignore[no-untyped-call]
        return mapped
    # Cheaper than to copy the bias to all rows beforehand, as baddbmm does.
    return torch.bmm(inputs, weight, out=out).add_(bias)


@cache
def onednn_is_faster() -> bool:
    """Return whether oneDNN beats MKL here on a layer of two members; takes some milliseconds."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    bias, inputs, weight = torch.zeros(2, 1, 200), torch.ones(2, 256, 200), torch.ones(2, 200, 200)
    best = {True: float("inf"), False: float("inf")}
    with torch.no_grad():
        for _ in range(_ROUNDS):
            for with_onednn in best:
                began = time.perf_counter()
                members_affine(bias, inputs, weight, with_onednn)
                best[with_onednn] = min(best[with_onednn], time.perf_counter() - began)
    return _MARGIN * best[True] < best[False]


class _OneDNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bias: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return torch.stack(
            [_product(x, w.T, b[0]) for x, w, b in zip(inputs, weight, bias, strict=True)]
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        by_bias = gradient.sum(1, keepdim=True) if ctx.needs_input_grad[0] else None
        by_inputs = by_weight = None
        if ctx.needs_input_grad[1]:
            by_inputs = torch.stack([_product(g, w) for g, w in zip(gradient, weight, strict=True)])
        if ctx.needs_input_grad[2]:
            by_weight = torch.stack(
                [_product(x.T, g.T) for x, g in zip(inputs, gradient, strict=True)]
            )
        return by_bias, by_inputs, by_weight


def _product(rows: Tensor, columns: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``rows columnsᵀ + bias``."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, bias, "none", [], "")
    return product
