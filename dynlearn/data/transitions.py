"""Transitions and windows cut from episodes, and the episodes' split.

Shapes: K episodes, M transitions, W windows, H horizon, O observation, A action, G goal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynlearn.data.episodes import EpisodeTable
from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.spaces import ActionSpace, DiscreteSpace


@dataclass(frozen=True)
class Transitions:
    """Steps of whole episodes, one after the other.

    Attributes:
        observation: [M, O], in the dataset's dtype.
        action: [M, A] float32, one-hot where actions are discrete.
        next_observation: [M, O].
        lengths: the transitions of each episode, [K].
    """

    observation: NDArray[np.floating]
    action: NDArray[np.float32]
    next_observation: NDArray[np.floating]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.action)


def cut_transitions(table: EpisodeTable, action_space: ActionSpace) -> Transitions:
    """Cut every step of every episode; none crosses from one episode to the next.

    Raises:
        InvalidInput: the actions are not of the space.
        CorruptData: a value is not finite.
    """
    is_discrete = isinstance(action_space, DiscreteSpace)
    if is_discrete != (table.actions.ndim == 1):
        kinds = ("continuous", "discrete")
        raise InvalidInput(
            f"expected {kinds[is_discrete]} actions, got {kinds[not is_discrete]} ones; "
            "use a dataset of the same environment"
        )
    is_before = before_each_step(table.lengths)
    # What follows a step is one place further on.
    is_after = np.roll(is_before, 1)
    if isinstance(action_space, DiscreteSpace):
        action = action_space.one_hot(table.actions)
    else:
        action = table.actions.astype(np.float32)
    for name, array in (("observations", table.observations), ("actions", action)):
        if not np.isfinite(array).all():
            raise CorruptData(
                f"expected finite {name}, got NaN or infinity; find the episodes with "
                "`dynlearn datasets verify` and collect them anew"
            )
    return Transitions(
        table.observations[is_before], action, table.observations[is_after], table.lengths
    )


@dataclass(frozen=True)
class JudgedTransitions:
    """Transitions and what each was worth.

    Attributes:
        inputs: observation, next observation, goal where there is one, and action,
            [M, 2·O + G + A].
        reward: [M].
    """

    inputs: NDArray[np.floating]
    reward: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.reward)


def judged_transitions(
    table: EpisodeTable, action_space: ActionSpace, origin: Sequence[float] | None = None
) -> JudgedTransitions:
    """Cut every step of every episode, with its reward.

    Args:
        table: the episodes.
        action_space: of their actions.
        origin: what is taken off observations, [O], if anything is.

    Raises:
        InvalidInput: the actions are not of the space.
        CorruptData: a value is not finite.
    """
    moves = cut_transitions(table, action_space)
    parts = [moves.observation, moves.next_observation]
    if origin is not None:
        parts = [part - np.array(origin) for part in parts]
    if table.desired_goals is not None:
        parts.append(table.desired_goals[before_each_step(table.lengths)])
    return JudgedTransitions(np.concatenate((*parts, moves.action), 1), table.rewards)


def before_each_step(lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of the T + 1 observations of episodes end to end a step begins at."""
    before = np.ones(int((lengths + 1).sum()), dtype=bool)
    before[np.cumsum(lengths + 1) - 1] = False
    return before


@dataclass(frozen=True)
class EpisodeSplit:
    """Which episodes to learn from, to select on and to judge by: sorted, disjoint indices."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def held_out(episodes: int, validation_share: float, test_share: float) -> tuple[int, int]:
    """Return how many of so many episodes are for validation and for testing."""
    validation = max(1, round(episodes * validation_share))
    return validation, max(1, round(episodes * test_share)) if test_share > 0 else 0


def split_episodes(
    episodes: int, validation_share: float, test_share: float, seed: int
) -> EpisodeSplit:
    """Deal episodes out at random; every share above zero gets at least one.

    Raises:
        InvalidInput: there are too few episodes.
    """
    validation, test = held_out(episodes, validation_share, test_share)
    if validation + test >= episodes:
        raise InvalidInput(
            f"expected enough episodes to train on beside {validation} for validation and {test} "
            f"for testing, got {episodes} in all; collect more or longer ones, or lower the shares"
        )
    order = np.random.default_rng(seed).permutation(episodes)
    return EpisodeSplit(
        train=np.sort(order[validation + test :]),
        validation=np.sort(order[:validation]),
        test=np.sort(order[validation : validation + test]),
    )


@dataclass(frozen=True)
class Windows:
    """Stretches of H steps, each inside one episode.

    Attributes:
        start: [W, O].
        actions: [W, H, A] float32, one-hot where actions are discrete.
        following: the H observations after the start, [W, H, O].
    """

    start: NDArray[np.floating]
    actions: NDArray[np.float32]
    following: NDArray[np.floating]


def cut_windows(
    table: EpisodeTable, action_space: ActionSpace, horizon: int, limit: int, seed: int
) -> Windows:
    """Draw up to ``limit`` windows at random among all those that the episodes hold.

    Args:
        table: the episodes.
        action_space: of their actions.
        horizon: H; shortened to the longest episode.
        limit: the most windows.
        seed: of the draw.
    """
    transitions = cut_transitions(table, action_space)
    horizon = min(horizon, int(table.lengths.max()))
    first = np.cumsum(table.lengths) - table.lengths
    room = np.maximum(table.lengths - horizon + 1, 0)
    # The start of every window, counted in transitions.
    starts = np.repeat(first, room) + np.concatenate([np.arange(count) for count in room])
    if len(starts) > limit:
        starts = np.sort(np.random.default_rng(seed).choice(starts, limit, replace=False))
    steps = starts[:, None] + np.arange(horizon)
    return Windows(
        transitions.observation[starts],
        transitions.action[steps],
        transitions.next_observation[steps],
    )
