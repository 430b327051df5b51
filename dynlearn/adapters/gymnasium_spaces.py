"""Gymnasium's spaces as plain data, and back."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np

from dynlearn.adapters.flat_spaces import describe_flat
from dynlearn.spaces import ActionSpace, BoxSpace, DiscreteSpace, ObservationSpace

Space = gymnasium.Space[Any]


def describe_observation(space: Space) -> ObservationSpace:
    """Return an environment's observation space as plain data.

    Vectors, and goal-Dicts of vectors, stay as they are; anything else is flattened.

    Raises:
        InvalidInput: a part of it is no numbers that columns could be made of.
    """
    if _is_vector(space):
        return ObservationSpace(observation=_box(space))
    if _is_of_goals(space):
        parts = cast(gymnasium.spaces.Dict, space).spaces
        return ObservationSpace(
            observation=_box(parts["observation"]), goal=_box(parts["desired_goal"])
        )
    return ObservationSpace(observation=describe_flat(space, "observation"))


def describe_action(space: Space) -> ActionSpace:
    """Return an environment's action space as plain data.

    Vectors of real numbers, and one choice of n, stay as they are; anything else is flattened.

    Raises:
        InvalidInput: a part of it is no numbers that columns could be made of.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return DiscreteSpace(n=int(space.n), start=int(space.start))
    return _box(space) if is_flat_action(space) else describe_flat(space, "action")


def is_flat_observation(space: Space) -> bool:
    """Whether observations are kept in the form in which the environment gives them."""
    return _is_vector(space) or _is_of_goals(space)


def is_flat_action(space: Space) -> bool:
    """Whether actions are kept in the form in which the environment takes them."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return True
    return _is_vector(space) and np.issubdtype(cast(np.dtype[Any], space.dtype), np.floating)


def to_gymnasium(space: ObservationSpace | ActionSpace) -> Space:
    """Return the Gymnasium space that plain data describe; a vector where one was flattened."""
    if isinstance(space, ObservationSpace):
        if space.goal is None:
            return to_gymnasium(space.observation)
        goal = to_gymnasium(space.goal)
        return gymnasium.spaces.Dict(
            {
                "observation": to_gymnasium(space.observation),
                "achieved_goal": goal,
                "desired_goal": goal,
            }
        )
    if isinstance(space, BoxSpace):
        dtype: Any = np.dtype(space.dtype)
        low, high = np.array(space.low, dtype), np.array(space.high, dtype)
        return gymnasium.spaces.Box(low, high, dtype=dtype)
    return gymnasium.spaces.Discrete(space.n, start=space.start)


def _is_vector(space: Space) -> bool:
    return isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1 and space.shape[0] > 0


def _is_of_goals(space: Space) -> bool:
    if not isinstance(space, gymnasium.spaces.Dict):
        return False
    parts = space.spaces
    return (
        parts.keys() == {"observation", "achieved_goal", "desired_goal"}
        and all(_is_vector(part) for part in parts.values())
        and parts["achieved_goal"].shape == parts["desired_goal"].shape
    )


def _box(space: Space) -> BoxSpace:
    box = cast(gymnasium.spaces.Box, space)
    return BoxSpace(
        low=tuple(box.low.tolist()), high=tuple(box.high.tolist()), dtype=str(box.dtype)
    )
