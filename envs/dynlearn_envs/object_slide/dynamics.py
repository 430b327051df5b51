"""The physics of ObjectSlide: an agent that pushes an object along a line.

Written once for every caller: `advance` computes with the functions of the namespace it is given,
numpy or torch, so that the environments and a planner on the true dynamics share each line.

The dynamics are version 1 of the environment of "Causal Influence Detection for Improving
Efficiency in Reinforcement Learning" (Seitzer et al., 2021), which "On the Pitfalls of
Heteroscedastic Uncertainty Estimation with Probabilistic Neural Networks" (Seitzer et al., 2022)
learns from. Units are metres, kilograms and seconds.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

TIME_STEP = 0.1
AGENT_MASS = 1.0
OBJECT_MASS = 0.5
ACTION_FORCE = 5.0
MAX_AGENT_VELOCITY = 5.0
FRICTION_LOSS = 0.15 * 9.81 * TIME_STEP
"""The velocity that a sliding object loses in one step."""
CONTACT_DISTANCE = 0.2
LINE_END = 5.0
"""The line reaches from -LINE_END to LINE_END."""
AGENT_WALL = -0.5
"""The agent cannot go beyond this point; the object can."""
GOAL_TOLERANCE = 0.5
"""How far from the goal the object may be for a reward of 0 instead of -1."""


def advance(
    namespace: ModuleType, state: Any, action: Any
) -> tuple[tuple[Any, Any, Any, Any], Any]:
    """Move one time step on.

    Args:
        namespace: numpy or torch, whichever the arrays belong to.
        state: agent position, agent velocity, object position, object velocity, each [...].
        action: the agent's push [...]; clipped to [-1, 1].

    Returns:
        The next state in the same order, and the velocity [...] that the object gained by contact.
    """
    agent_position, agent_velocity, object_position, object_velocity = state
    clip, where = namespace.clip, namespace.where

    acceleration = ACTION_FORCE / AGENT_MASS * clip(action, -1.0, 1.0)
    agent_velocity = clip(
        agent_velocity + acceleration * TIME_STEP, -MAX_AGENT_VELOCITY, MAX_AGENT_VELOCITY
    )
    moved = agent_position + agent_velocity * TIME_STEP

    # Contact is judged, and the agent stopped, at the object's place before the step.
    side = namespace.sign(object_position - agent_position)
    contact = side * (moved - object_position) + CONTACT_DISTANCE >= 0
    gained = where(contact, AGENT_MASS / OBJECT_MASS * agent_velocity, 0.0)
    agent_position = where(contact, object_position - CONTACT_DISTANCE * side, moved)
    agent_velocity = where(contact, 0.0, agent_velocity)

    # Friction acts on the new velocity, and the object moves in the very step of the push.
    object_velocity = object_velocity + gained
    slowed = clip(object_velocity - FRICTION_LOSS, 0.0, None)
    object_velocity = where(object_velocity > 0, slowed, object_velocity)
    object_position = object_position + object_velocity * TIME_STEP

    agent = _stop_at_walls(namespace, agent_position, agent_velocity, -LINE_END, AGENT_WALL)
    thing = _stop_at_walls(namespace, object_position, object_velocity, None, LINE_END)
    return (*agent, *thing), gained


def _stop_at_walls(
    namespace: ModuleType, position: Any, velocity: Any, low: float | None, high: float
) -> tuple[Any, Any]:
    held = namespace.clip(position, low, high)
    return held, namespace.where(held == position, velocity, 0.0)


def step(observation: Tensor, action: Tensor) -> Tensor:
    """Return the true next observations [..., 4] of observations [..., 4] and actions [..., 1].

    Dtype and device are the observation's. The environment's own state is float64; its float32
    observations give a result that is true to a few float32 roundings.
    """
    import torch

    state, _ = advance(torch, observation.unbind(-1), action[..., 0])
    return torch.stack(state, dim=-1)


def start(uniforms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return start states [4, ...] and goals [...] made from uniform numbers [3, ...] of [0, 1)."""
    agent_position = -3.9 + 2 * uniforms[0] - 1
    object_position = agent_position + 1.5 + uniforms[1] - 0.5
    goal = 2.5 + 4 * uniforms[2] - 2
    rest = np.zeros_like(goal)
    return np.stack([agent_position, rest, object_position, rest]), goal
