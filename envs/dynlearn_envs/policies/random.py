"""Uniformly random actions, in any environment with bounded or discrete actions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynlearn.errors import InvalidInput
from dynlearn.spaces import ActionSpace, BoxSpace, DiscreteSpace


class RandomPolicy:
    """Uniform over a Box or over n choices, independent of the observations."""

    def __init__(self, action_space: ActionSpace):
        """Act in ``action_space``.

        Raises:
            InvalidInput: an action has no finite bounds to be uniform between.
        """
        check_bounded(action_space)
        self._space = action_space
        self._actions: NDArray[Any] = np.empty((0, 0))
        self._time_step = 0

    def reset(self, generators: Sequence[np.random.Generator], max_steps: int) -> None:
        """Draw the actions of B episodes of at most ``max_steps`` steps."""
        draws = [uniform_actions(self._space, generator, max_steps) for generator in generators]
        self._actions = np.stack(draws, axis=1)
        self._time_step = 0

    def act(self, observations: Any) -> NDArray[Any]:
        """Return actions, [B, A] or integers [B]."""
        actions: NDArray[Any] = self._actions[self._time_step]
        self._time_step += 1
        return actions


def uniform_actions(space: ActionSpace, generator: np.random.Generator, steps: int) -> NDArray[Any]:
    """Return uniformly random actions, [steps, A] or integers [steps]."""
    if isinstance(space, DiscreteSpace):
        return generator.integers(space.start, space.start + space.n, steps)
    low, high = np.array(space.low), np.array(space.high)
    draws = generator.random((steps, space.size))
    actions: NDArray[Any] = low + (high - low) * draws
    whole = list(space.integers)
    actions[:, whole] = np.floor(low + (high - low + 1) * draws)[:, whole]
    for first, count in space.one_hot:
        chosen = np.floor(count * draws[:, first]).astype(int)
        actions[:, first : first + count] = np.eye(count)[chosen]
    return actions.astype(space.dtype)


def check_bounded(space: ActionSpace) -> None:
    """Refuse actions that nothing can be uniform over.

    Raises:
        InvalidInput: a Box has a side without a bound.
    """
    if isinstance(space, BoxSpace) and not np.isfinite([space.low, space.high]).all():
        raise InvalidInput(
            f"expected bounded actions to choose uniformly from, got low {space.low} and high "
            f"{space.high}; rescale them with gymnasium.wrappers.RescaleAction"
        )
