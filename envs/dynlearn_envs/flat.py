"""Environments with nested spaces, seen as ones with vectors."""

from __future__ import annotations

from typing import Any

import gymnasium

from dynlearn.adapters.flat_spaces import flatten, unflatten
from dynlearn.adapters.gymnasium_spaces import (
    describe_action,
    describe_observation,
    is_flat_action,
    is_flat_observation,
    to_gymnasium,
)


class FlatEnvironment(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Gives observations, and takes actions, as the vectors that they are flattened to.

    Attributes:
        described: the spaces as plain data, with their columns' names.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]):
        """See ``env`` flat; what is flat already stays as it is.

        Raises:
            InvalidInput: a part of a space is no numbers that columns could be made of.
        """
        super().__init__(env)
        self.described = (
            describe_observation(env.observation_space),
            describe_action(env.action_space),
        )
        self._keeps = (
            is_flat_observation(env.observation_space),
            is_flat_action(env.action_space),
        )
        observation, action = self.described
        if not self._keeps[0]:
            self.observation_space = to_gymnasium(observation)
        if not self._keeps[1]:
            self.action_space = to_gymnasium(action)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin an episode; see `gymnasium.Env.reset`."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._flat(observation), info

    def step(self, action: Any) -> Any:
        """Take a step; see `gymnasium.Env.step`."""
        if not self._keeps[1]:
            action = unflatten(self.env.action_space, action)
        observation, *rest = self.env.step(action)
        return self._flat(observation), *rest

    def _flat(self, observation: Any) -> Any:
        if self._keeps[0]:
            return observation
        return flatten(self.env.observation_space, observation, self.described[0].observation.dtype)
