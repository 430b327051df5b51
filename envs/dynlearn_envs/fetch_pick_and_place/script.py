"""A script for FetchPickAndPlace: approach, descend, grasp, lift, carry."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynlearn_envs.fetch_pick_and_place.task import FINGER_POSITION, OBJECT_FROM_GRIPPER

_GAIN = 10.0
"""Action for each metre between the gripper and where it shall be."""
_OPEN, _CLOSE = 1.0, -1.0
_UP = np.array([0.0, 0.0, 1.0])
_HOVER = 0.08
"""How high above the object the gripper stays until it is over it."""
_LIFT = 0.05
"""How high above the goal the object is carried until it is over it."""
_OVER = 0.02
"""How far the gripper may be from the object's vertical to go down."""
_AROUND = 0.01
"""How far the fingers may be from the object's middle to close."""
_HELD = 0.03
"""How far a held object, which slips a little, may be from the fingers' middle."""
_CLOSED = 0.051
"""The opening of the fingers below which they hold what is between them."""


def pick_and_place(observations: Any, steps_left: int) -> NDArray[np.float64]:
    """Return the actions [B, 4] for goal-Dict observations of B FetchPickAndPlace environments."""
    state = observations["observation"]
    to_object = state[:, OBJECT_FROM_GRIPPER]
    to_goal = observations["desired_goal"] - observations["achieved_goal"]
    opening = state[:, FINGER_POSITION].sum(axis=1)

    over = np.linalg.norm(to_object[:, :2], axis=1) < _OVER
    away = np.linalg.norm(to_object, axis=1)
    around = away < _AROUND
    held = (away < _HELD) & (opening < _CLOSED)

    # A goal on the table is neared from above, so that the block is not dragged.
    far = np.linalg.norm(to_goal[:, :2], axis=1)
    carry = to_goal + np.minimum(far, _LIFT)[:, None] * _UP

    move = np.where(over[:, None], to_object, to_object + _HOVER * _UP)
    move = np.where(around[:, None], 0.0, move)
    move = np.where(held[:, None], carry, move)
    fingers = np.where(around | held, _CLOSE, _OPEN)
    return np.concatenate([np.clip(_GAIN * move, -1.0, 1.0), fingers[:, None]], axis=1)
