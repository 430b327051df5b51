"""Scripts made into behaviour policies: noise is added, and some episodes are random."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynlearn.errors import InvalidInput
from dynlearn.spaces import ActionSpace, BoxSpace
from dynlearn_envs.policies.random import check_bounded, uniform_actions

Script = Callable[[Any, int], NDArray[np.float64]]
"""(goal-Dict of observations [B, ...], steps left) -> actions [B, A]; keeps no state."""


class ScriptedPolicy:
    """A script whose episodes differ in noise, down to none, and of which some are random.

    Each episode draws, from its own generator, whether it is random (with probability
    ``random_share``), and a noise level, uniform between 0 and ``noise``.
    """

    def __init__(
        self, script: Script, action_space: ActionSpace, noise: float, random_share: float
    ):
        """Follow ``script``; ``noise`` is in half action ranges.

        Raises:
            InvalidInput: noise or share are out of range, or the actions are not bounded vectors.
        """
        if not isinstance(action_space, BoxSpace):
            raise InvalidInput(f"expected actions that are a Box, got {action_space}")
        if not (0 <= noise < np.inf and 0 <= random_share <= 1):
            raise InvalidInput(
                "expected noise of at least 0 and random_share between 0 and 1, "
                f"got {noise} and {random_share}"
            )
        check_bounded(action_space)
        self._script = script
        self._space = action_space
        self._low, self._high = np.array(action_space.low), np.array(action_space.high)
        self._noise = noise
        self._random_share = random_share

    def reset(self, generators: Sequence[np.random.Generator], max_steps: int) -> None:
        """Draw the noise, or the actions, of B episodes of at most ``max_steps`` steps."""
        draws = [self._draw(generator, max_steps) for generator in generators]
        is_random, disturbance = zip(*draws, strict=True)
        self._is_random = np.array(is_random)
        self._disturbance = np.stack(disturbance, axis=1)
        self._steps_left = max_steps

    def _draw(self, generator: np.random.Generator, steps: int) -> tuple[bool, NDArray[np.float64]]:
        """Return whether an episode is random, and its actions or else its noise, [T, A]."""
        is_random = generator.random() < self._random_share
        if is_random:
            return True, uniform_actions(self._space, generator, steps)
        level = generator.uniform(0.0, self._noise) * (self._high - self._low) / 2
        return False, level * generator.standard_normal((steps, self._space.size))

    def act(self, observations: Any) -> NDArray[Any]:
        """Return actions [B, A]."""
        disturbance = self._disturbance[len(self._disturbance) - self._steps_left]
        actions = self._script(observations, self._steps_left) + disturbance
        actions[self._is_random] = disturbance[self._is_random]
        self._steps_left -= 1
        clipped: NDArray[Any] = np.clip(actions, self._low, self._high).astype(self._space.dtype)
        return clipped
