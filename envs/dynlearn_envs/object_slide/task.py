"""ObjectSlide as a planner sees it: rewards, success and contact of batched transitions.

Rewards: ``sparse`` is the environment's own, 0 within 0.5 m of the goal and -1 outside; ``dense``
is the distance, negative; ``smooth`` is a bump exp(-(distance / 0.25 m)²) - 1, whose best place is
the goal itself and not the near edge of the tolerance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dynlearn.task import Task
from dynlearn_envs.object_slide.dynamics import GOAL_TOLERANCE, advance
from dynlearn_envs.registration import OBJECT_SLIDE

if TYPE_CHECKING:
    from torch import Tensor

SMOOTH_WIDTH = 0.25


def _distance(next_observation: Tensor, goal: Tensor) -> Tensor:
    return (next_observation[..., 2] - goal[..., 0]).abs()


def _success(observation: Tensor, action: Tensor, next_observation: Tensor, goal: Tensor) -> Tensor:
    return _distance(next_observation, goal) <= GOAL_TOLERANCE


def _sparse(observation: Tensor, action: Tensor, next_observation: Tensor, goal: Tensor) -> Tensor:
    success = _success(observation, action, next_observation, goal)
    return success.to(next_observation.dtype) - 1


def _dense(observation: Tensor, action: Tensor, next_observation: Tensor, goal: Tensor) -> Tensor:
    return -_distance(next_observation, goal)


def _smooth(observation: Tensor, action: Tensor, next_observation: Tensor, goal: Tensor) -> Tensor:
    return (-(_distance(next_observation, goal) / SMOOTH_WIDTH).square()).exp() - 1


def _contact(observation: Tensor, action: Tensor, next_observation: Tensor, goal: Tensor) -> Tensor:
    import torch

    gained: Tensor
    _, gained = advance(torch, observation.unbind(-1), action[..., 0])
    return gained != 0


def _read_goal(observation: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    return observation["desired_goal"]


TASK = Task(
    name="object_slide",
    environment=OBJECT_SLIDE,
    observation_columns=(
        "agent_position",
        "agent_velocity",
        "object_position",
        "object_velocity",
    ),
    rewards={"sparse": _sparse, "dense": _dense, "smooth": _smooth},
    success=_success,
    read_context=_read_goal,
    contact=_contact,
    target_columns=(2,),
    units=("m", "m/s", "m", "m/s"),
)
