"""A script for ObjectSlide: run up, and hit the object just so fast that it ends at the goal."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynlearn_envs.object_slide.dynamics import (
    ACTION_FORCE,
    AGENT_MASS,
    AGENT_WALL,
    CONTACT_DISTANCE,
    FRICTION_LOSS,
    OBJECT_MASS,
    TIME_STEP,
)

_GAIN = ACTION_FORCE / AGENT_MASS * TIME_STEP
"""The velocity that the agent gains in one step of full action."""

Array = NDArray[np.float64]


def slide_to_goal(observations: Any, steps_left: int) -> Array:
    """Return the actions [B, 1] for goal-Dict observations of B ObjectSlide environments."""
    agent, velocity, thing, sliding = observations["observation"].astype(np.float64).T
    distance = observations["desired_goal"][:, 0] - thing
    gap = thing - CONTACT_DISTANCE - agent

    # The run-up takes some of the time in which the object could slide; two rounds settle it.
    wanted = np.full_like(gap, _GAIN)
    for _ in range(2):
        sliding_steps = steps_left + 1 - _run_up_steps(gap, velocity, wanted)
        wanted = launch_velocity(distance, sliding_steps) * OBJECT_MASS / AGENT_MASS

    # Where the gap is too short to get fast enough, back off first.
    target = np.where(_fastest_contact(gap, velocity) < wanted, velocity - _GAIN, wanted)
    out_of_reach = thing - CONTACT_DISTANCE > AGENT_WALL
    target = np.where((sliding > 0) | (distance <= 0) | out_of_reach, 0.0, target)
    actions: Array = np.clip((target - velocity) / _GAIN, -1.0, 1.0)[:, None]
    return actions


def launch_velocity(distance: Array, steps: Array) -> Array:
    """Return the velocity [B] that carries a resting object over ``distance`` [B] in ``steps`` [B].

    It is the velocity before the friction of the first step. The object comes to rest at the
    distance if the steps suffice, and else is still moving when it gets there at the last.
    """
    distance = np.maximum(distance, 0.0)
    until_rest = np.floor((1 + np.sqrt(1 + 8 * distance / (TIME_STEP * FRICTION_LOSS))) / 2)
    moving = np.clip(until_rest, 1, np.maximum(steps, 1))
    return distance / (TIME_STEP * moving) + FRICTION_LOSS * (moving + 1) / 2


def _steps_to_cover(distance: Array, velocity: Array) -> Array:
    """Return the steps [B] of full acceleration after which ``distance`` [B] is covered."""
    quadratic = TIME_STEP * _GAIN / 2
    linear = quadratic + TIME_STEP * velocity
    root = np.sqrt(linear**2 + 4 * quadratic * np.maximum(distance, 0.0))
    return np.maximum(np.ceil((root - linear) / (2 * quadratic)), 1)


def _fastest_contact(gap: Array, velocity: Array) -> Array:
    """Return the velocity [B] at contact after full acceleration over ``gap`` [B]."""
    return velocity + _GAIN * _steps_to_cover(gap, velocity)


def _run_up_steps(gap: Array, velocity: Array, wanted: Array) -> Array:
    """Return about how many steps [B] pass until contact: to accelerate, then to coast."""
    accelerating = np.maximum(np.floor((wanted - velocity) / _GAIN), 0)
    covered = TIME_STEP * accelerating * (velocity + _GAIN * (accelerating + 1) / 2)
    coasting = np.ceil((gap - covered) / (TIME_STEP * wanted))
    return np.where(covered < gap, accelerating + coasting, _steps_to_cover(gap, velocity))
