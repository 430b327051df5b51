"""What the projections share: the pull of a sample onto its bound, and only of those beyond it.

Shapes: ``...`` are the batch dimensions of the distances; values have one or two more.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def pull(new: Tensor, old: Tensor, distance: Tensor, bound: float) -> Tensor:
    """Return ``old + √(bound / distance) (new - old)``, or ``new`` where it is within the bound.

    This is the projection for every distance that is a squared norm of ``new - old``.
    """
    share = (bound / distance.clamp(min=bound)).sqrt()
    return old + share.reshape(share.shape + (1,) * (new.ndim - share.ndim)) * (new - old)


def replace_beyond(
    value: Tensor,
    distance: Tensor,
    bound: float,
    project: Callable[..., Tensor],
    new: Tensor,
    old: Tensor,
    *rest: Tensor,
) -> Tensor:
    """Return ``value`` with ``project(new, old, *rest)`` in place of the samples beyond the bound.

    Where the distance is not finite the sample stays as it is.
    """
    beyond = (distance > bound) & (distance < math.inf)
    # To pick samples a GPU's host must wait for their number. Vectors cost less than that wait;
    # matrices are decomposed, which waits in any case.
    if value.is_cuda and value.ndim == beyond.ndim + 1:
        return replace_masked(value, beyond, project, new, old, *rest)
    return replace_picked(value, beyond, project, new, old, *rest)


def replace_picked(
    value: Tensor, beyond: Tensor, project: Callable[..., Tensor], *inputs: Tensor
) -> Tensor:
    """Replace by projecting only the samples that are ``beyond``."""
    rows = beyond.flatten().nonzero().squeeze(-1)
    if not len(rows):
        return value

    def flat(tensor: Tensor) -> Tensor:
        return tensor.reshape(beyond.numel(), *tensor.shape[beyond.ndim :])

    projected = project(*(flat(tensor).index_select(0, rows) for tensor in inputs))
    return flat(value).index_copy(0, rows, projected).reshape(value.shape)


def replace_masked(
    value: Tensor,
    beyond: Tensor,
    project: Callable[..., Tensor],
    new: Tensor,
    old: Tensor,
    *rest: Tensor,
) -> Tensor:
    """Replace by projecting every sample; ``old`` stands in for those that are not ``beyond``.

    So what is discarded cannot bring a NaN into the gradient.
    """
    mask = beyond.reshape(beyond.shape + (1,) * (value.ndim - beyond.ndim))
    return torch.where(mask, project(torch.where(mask, new, old), old, *rest), value)
