"""Gymnasium's spaces as plain data, and back."""

from __future__ import annotations

from textwrap import shorten
from typing import Any, cast

import gymnasium
import numpy as np

from dynlearn.errors import InvalidInput
from dynlearn.spaces import ActionSpace, BoxSpace, DiscreteSpace, ObservationSpace


def describe_observation(space: gymnasium.Space[Any]) -> ObservationSpace:
    """Return an environment's observation space as plain data.

    Raises:
        InvalidInput: it is neither a vector nor a goal-Dict of vectors.
    """
    if _is_vector(space):
        return ObservationSpace(observation=_box(space))
    if isinstance(space, gymnasium.spaces.Dict):
        parts = dict(space.spaces)
        if (
            parts.keys() == {"observation", "achieved_goal", "desired_goal"}
            and all(_is_vector(part) for part in parts.values())
            and parts["achieved_goal"].shape == parts["desired_goal"].shape
        ):
            return ObservationSpace(
                observation=_box(parts["observation"]), goal=_box(parts["desired_goal"])
            )
    raise InvalidInput(
        "expected observations that are a 1-D Box, or a Dict of 1-D Boxes observation, "
        f"achieved_goal and desired_goal, got {shorten(str(space), width=300)}; "
        "flatten them with a wrapper"
    )


def describe_action(space: gymnasium.Space[Any]) -> ActionSpace:
    """Return an environment's action space as plain data.

    Raises:
        InvalidInput: it is neither a vector of real numbers nor one of n choices.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return DiscreteSpace(n=int(space.n), start=int(space.start))
    if _is_vector(space) and np.issubdtype(cast(np.dtype[Any], space.dtype), np.floating):
        return _box(space)
    raise InvalidInput(
        "expected actions that are Discrete or a 1-D Box of real numbers, "
        f"got {shorten(str(space), width=300)}; change them with a wrapper"
    )


def to_gymnasium(space: ObservationSpace | ActionSpace) -> gymnasium.Space[Any]:
    """Return the Gymnasium space that plain data describe."""
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


def _is_vector(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1


def _box(space: gymnasium.Space[Any]) -> BoxSpace:
    box = cast(gymnasium.spaces.Box, space)
    return BoxSpace(
        low=tuple(box.low.tolist()), high=tuple(box.high.tolist()), dtype=str(box.dtype)
    )
