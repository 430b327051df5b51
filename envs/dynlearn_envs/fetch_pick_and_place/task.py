"""FetchPickAndPlace as gymnasium-robotics ships it: its columns, rewards, success and contact.

A Fetch arm picks a block up from a table and holds it at a goal, on the table or in the air. The
environment itself is `gymnasium_robotics`' own; here is what a planner must know of it. Lengths
are in metres, velocities in metres (or radians) a step of 0.04 s, angles in radians.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dynlearn.task import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

FETCH_PICK_AND_PLACE = "FetchPickAndPlace-v4"

GRIPPER_POSITION = slice(0, 3)
OBJECT_POSITION = slice(3, 6)
OBJECT_FROM_GRIPPER = slice(6, 9)
FINGER_POSITION = slice(9, 11)
OBJECT_ROTATION = slice(11, 14)
OBJECT_VELOCITY = slice(14, 17)
"""Relative to the gripper's velocity."""
OBJECT_ANGULAR_VELOCITY = slice(17, 20)
GRIPPER_VELOCITY = slice(20, 23)
FINGER_VELOCITY = slice(23, 25)

COLUMNS = (
    *("gripper_x", "gripper_y", "gripper_z"),
    *("object_x", "object_y", "object_z"),
    *("object_from_gripper_x", "object_from_gripper_y", "object_from_gripper_z"),
    *("right_finger", "left_finger"),
    *("object_rotation_x", "object_rotation_y", "object_rotation_z"),
    *("object_velocity_x", "object_velocity_y", "object_velocity_z"),
    *("object_angular_velocity_x", "object_angular_velocity_y", "object_angular_velocity_z"),
    *("gripper_velocity_x", "gripper_velocity_y", "gripper_velocity_z"),
    *("right_finger_velocity", "left_finger_velocity"),
)

# Velocities are displacements in one control step: the environment multiplies by its length.
UNITS = (
    *["m"] * 11,
    *["rad"] * 3,
    *["m/step"] * 3,
    *["rad/step"] * 3,
    *["m/step"] * 5,
)

GOAL_TOLERANCE = 0.05
"""How far from the goal the object may be for a sparse reward of 0 instead of -1."""

MOVED = 1e-3
"""The displacement in one step from which on the object counts as moved by the arm."""


def _length(vector: Tensor) -> Tensor:
    return vector.square().sum(dim=-1).sqrt()


def _distance(next_observation: Tensor, goal: Tensor) -> Tensor:
    return _length(next_observation[..., OBJECT_POSITION] - goal)


def _success(observation: Tensor, action: Tensor, next_observation: Tensor, goal: Tensor) -> Tensor:
    return _distance(next_observation, goal) < GOAL_TOLERANCE


def _sparse(observation: Tensor, action: Tensor, next_observation: Tensor, goal: Tensor) -> Tensor:
    missed = _distance(next_observation, goal) > GOAL_TOLERANCE
    return -missed.to(next_observation.dtype)


def _dense(observation: Tensor, action: Tensor, next_observation: Tensor, goal: Tensor) -> Tensor:
    return -_distance(next_observation, goal)


def _contact(observation: Tensor, action: Tensor, next_observation: Tensor, goal: Tensor) -> Tensor:
    """Whether the object moves: nothing but the arm can move a block that lies on the table."""
    displacement = next_observation[..., OBJECT_POSITION] - observation[..., OBJECT_POSITION]
    return _length(displacement) > MOVED


def _read_goal(observation: Mapping[str, Any]) -> NDArray[np.float64]:
    goal: NDArray[np.float64] = observation["desired_goal"]
    return goal


TASK = Task(
    name="fetch_pick_and_place",
    environment=FETCH_PICK_AND_PLACE,
    observation_columns=COLUMNS,
    rewards={"sparse": _sparse, "dense": _dense},
    success=_success,
    read_context=_read_goal,
    contact=_contact,
    target_columns=(3, 4, 5),
    units=UNITS,
)
