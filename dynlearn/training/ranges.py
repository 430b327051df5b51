"""What a model is told of the range of its data: where its numbers lie, and its actions.

Shapes: M transitions, O observation, A action.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynlearn.data.transitions import Transitions
from dynlearn.models.spec import ModelSpec
from dynlearn.spaces import BoxSpace

# Of the spread of a step: a float32 coarser than this share of it hides what is to be learned.
_COARSE = 0.01


def with_ranges(spec: ModelSpec, transitions: Transitions) -> ModelSpec:
    """Return a spec with what its model must know of the range of the training data.

    Args:
        spec: of the model.
        transitions: to be trained on.
    """
    return spec.model_copy(
        update={
            "origin": _origin(transitions),
            "action_range": _action_range(spec, transitions.action),
        }
    )


def _origin(transitions: Transitions) -> tuple[float, ...] | None:
    """Return what to take off each column [O] so that float32 holds the rest; None for nothing.

    Columns that float32 holds well enough keep the origin zero, for their numbers to stay the same.
    """
    before, after = transitions.observation, transitions.next_observation
    if before.dtype != np.float64 or not len(before):
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        step = np.std(after - before, axis=0)
        resolution = np.finfo(np.float32).eps * np.abs(before).max(0)
        coarse = (step > 0) & (resolution > _COARSE * step)
        middle = np.where(coarse, before.mean(0), 0.0)
    if not coarse.any() or not np.isfinite(middle).all():
        return None
    return tuple(middle.tolist())


def _action_range(
    spec: ModelSpec, action: NDArray[np.float32]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the least and the largest action of each column, if any is outside the space."""
    space = spec.action_space
    if not isinstance(space, BoxSpace) or not len(action):
        return None
    low, high = (np.array(bound, np.float32) for bound in (space.low, space.high))
    least, largest = action.min(0), action.max(0)
    if (low <= least).all() and (largest <= high).all():
        return None
    return tuple(np.minimum(low, least).tolist()), tuple(np.maximum(high, largest).tolist())
