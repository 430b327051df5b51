"""Behaviour policies: how actions are chosen when data is collected.

`Policy` is the interface, `make_policy` finds one by name: ``random`` acts uniformly in any
environment; ``scripted`` solves one that has a script, with noise and with random episodes mixed
in, so that the data holds contacts, failures and successes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dynlearn.errors import InvalidInput, nearest
from dynlearn.spaces import ActionSpace
from dynlearn_envs.fetch_pick_and_place.script import pick_and_place
from dynlearn_envs.fetch_pick_and_place.task import FETCH_PICK_AND_PLACE
from dynlearn_envs.object_slide.script import slide_to_goal
from dynlearn_envs.policies.random import RandomPolicy
from dynlearn_envs.policies.scripted import Script, ScriptedPolicy
from dynlearn_envs.registration import OBJECT_SLIDE

__all__ = ["Policy", "make_policy"]

SCRIPTS: dict[str, Script] = {OBJECT_SLIDE: slide_to_goal, FETCH_PICK_AND_PLACE: pick_and_place}


class Policy(Protocol):
    """Chooses the actions of B episodes that run side by side, one call of `act` for each step."""

    def reset(self, generators: Sequence[np.random.Generator], max_steps: int) -> None:
        """Begin B episodes of at most ``max_steps`` steps.

        All that is random in an episode is drawn here, from the episode's own generator: what
        happens in it does not depend on the episodes beside it.
        """

    def act(self, observations: Any) -> NDArray[Any]:
        """Return actions, [B, A] or integers [B].

        Args:
            observations: what a vector environment gives, [B, O] or a Dict of [B, ...]. Rows whose
                episode is over may hold anything; their actions mean nothing.
        """


def _random(env_id: str, action_space: ActionSpace, noise: float, random_share: float) -> Policy:
    return RandomPolicy(action_space)


def _scripted(env_id: str, action_space: ActionSpace, noise: float, random_share: float) -> Policy:
    if env_id not in SCRIPTS:
        raise InvalidInput(
            f"expected an environment with a script, {' or '.join(SCRIPTS)}, got {env_id}; "
            "use the policy random"
        )
    return ScriptedPolicy(SCRIPTS[env_id], action_space, noise, random_share)


POLICIES: dict[str, Callable[[str, ActionSpace, float, float], Policy]] = {
    "random": _random,
    "scripted": _scripted,
}


def make_policy(
    name: str,
    env_id: str,
    action_space: ActionSpace,
    noise: float = 0.0,
    random_share: float = 0.0,
) -> Policy:
    """Make the policy called ``name`` for an environment.

    Args:
        name: ``random`` or ``scripted``.
        env_id: the environment's Gymnasium id.
        action_space: its actions.
        noise: of ``scripted``, the largest standard deviation of Gaussian action noise, in half
            action ranges; each episode draws its own level between 0 and this.
        random_share: of ``scripted``, the share of episodes with uniformly random actions.

    Raises:
        InvalidInput: there is no such policy, or it cannot act in this environment.
    """
    if name not in POLICIES:
        raise InvalidInput(
            f"expected the name of a policy, got {name!r}; {nearest(name, POLICIES)}"
        )
    return POLICIES[name](env_id, action_space, noise, random_share)
