"""What a model is told of the range of its data: where its numbers lie, and its actions.

Shapes: O observation, A action.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from dynlearn.data.transitions import Transitions
from dynlearn.models.scaling import Moments
from dynlearn.models.spec import ModelSpec
from dynlearn.spaces import ActionSpace, BoxSpace

# Of the spread of a step: a float32 coarser than this share of it hides what is to be learned.
_COARSE = 0.01


def with_ranges(spec: ModelSpec, parts: Iterable[Transitions]) -> ModelSpec:
    """Return a spec with what its model must know of the range of the training data.

    Args:
        spec: of the model.
        parts: the transitions to be trained on, some at a time.
    """
    size = spec.observation_size
    places, steps = Moments(size), Moments(size)
    least = np.full(spec.action_size, np.inf, np.float32)
    largest = -least
    for part in parts:
        if part.observation.dtype == np.float64:
            before = torch.from_numpy(part.observation)
            places.add(before)
            steps.add(torch.from_numpy(part.next_observation) - before)
        least = np.minimum(least, part.action.min(0, initial=np.inf))
        largest = np.maximum(largest, part.action.max(0, initial=-np.inf))
    action_range = _action_range(spec.action_space, least, largest)
    return spec.model_copy(update={"origin": _origin(places, steps), "action_range": action_range})


def _origin(places: Moments, steps: Moments) -> tuple[float, ...] | None:
    """Return what to take off each column [O] so that float32 holds the rest; None for nothing.

    Columns that float32 holds well enough keep the origin zero, for their numbers to stay the same.
    """
    step = steps.variance.sqrt()
    resolution = torch.finfo(torch.float32).eps * places.largest
    coarse = (step > 0) & (resolution > _COARSE * step)
    origin = torch.where(coarse, places.mean, 0.0)
    return tuple(origin.tolist()) if coarse.any() and origin.isfinite().all() else None


def _action_range(
    space: ActionSpace, least: NDArray[np.float32], largest: NDArray[np.float32]
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the bounds of actions [A], if any is outside the space."""
    if not isinstance(space, BoxSpace):
        return None
    low, high = (np.array(bound, np.float32) for bound in (space.low, space.high))
    if (low <= least).all() and (largest <= high).all():
        return None
    return tuple(np.minimum(low, least).tolist()), tuple(np.maximum(high, largest).tolist())
