"""Recorder: episodes as they are played, many at once.

Shapes: B episodes of a block, T steps, O observation, A action, G goal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynlearn.data.episodes import EpisodeTable
from dynlearn.errors import CorruptData
from dynlearn.spaces import ActionSpace, ObservationSpace

Array = NDArray[Any]
Rows = int | slice


class Played(NamedTuple):
    """Episodes that were played.

    Attributes:
        table: what was taken down.
        successes: whether each ended in success, as its environment says; None where it does not.
    """

    table: EpisodeTable
    successes: tuple[bool | None, ...]


class Recorder:
    """Takes down B episodes of at most `max_steps` steps.

    Attributes:
        max_steps: T at most.
        latest: after how many steps something was last observed.
        lengths: T of each episode that has ended, else 0; [B].
    """

    def __init__(
        self,
        episodes: int,
        max_steps: int,
        observation_space: ObservationSpace,
        action_space: ActionSpace,
    ):
        """Make room for them."""
        self.max_steps = max_steps
        self.latest = 0
        self.lengths = np.zeros(episodes, dtype=np.int64)
        self._successes: list[bool | None] = [None] * episodes
        boxes = {"observations": observation_space.observation}
        if observation_space.goal is not None:
            boxes |= dict.fromkeys(("achieved_goals", "desired_goals"), observation_space.goal)
        self._states = {
            name: np.empty((episodes, max_steps + 1, box.size), dtype=box.dtype)
            for name, box in boxes.items()
        }
        width, dtype = (
            ((action_space.size,), action_space.dtype)
            if action_space.kind == "box"
            else ((), "int64")
        )
        self._steps: dict[str, Array] = {
            "actions": np.empty((episodes, max_steps, *width), dtype=dtype),
            "rewards": np.empty((episodes, max_steps), dtype=np.float64),
            "terminated": np.zeros((episodes, max_steps), dtype=np.bool_),
            "truncated": np.zeros((episodes, max_steps), dtype=np.bool_),
        }

    def state(self, rows: Rows, step: int, observation: Any) -> None:
        """Take down what was observed after ``step`` steps.

        Raises:
            CorruptData: it has another shape than the observation space says.
        """
        self.latest = step
        parts = observation if isinstance(observation, Mapping) else {"observation": observation}
        for name, array in self._states.items():
            part, room = parts[name.removesuffix("s")], array[rows, step]
            if np.shape(part) != room.shape:
                raise CorruptData(
                    f"expected {name} of shape {room.shape} as the observation space says, "
                    f"got {np.shape(part)} after {step} steps"
                )
            room[...] = part

    def step(
        self, rows: Rows, step: int, action: Any, reward: Any, terminated: Any, truncated: Any
    ) -> None:
        """Take down the step that led from state ``step`` to the next."""
        room = self._steps["rewards"][rows, step]
        if np.shape(reward) != room.shape and np.size(reward) == room.size:
            # Of shape [1], as some environments give it.
            reward = np.reshape(reward, room.shape)
        values = (action, reward, terminated, truncated)
        for array, value in zip(self._steps.values(), values, strict=True):
            array[rows, step] = value

    def success(self, row: int, is_success: Any) -> None:
        """Take down what the environment says of the success of an episode's last step."""
        self._successes[row] = None if is_success is None else bool(is_success)

    def check(self, row: int, index: int) -> None:
        """Check an episode that has been taken down.

        Raises:
            CorruptData: it holds numbers that are not finite; `latest` then is the first such step.
        """
        length = int(self.lengths[row])
        states = {name: values[row, : length + 1] for name, values in self._states.items()}
        steps = {name: values[row, :length] for name, values in self._steps.items()}
        for name, values in (states | steps).items():
            finite = np.isfinite(values.reshape(len(values), -1)).all(1)
            if not finite.all():
                # A state follows the step before it.
                first = int(np.argmin(finite)) - (name in states)
                self.latest = max(0, first)
                raise CorruptData(f"{name} that are not finite")

    def played(self, indices: Sequence[int], seeds: Sequence[int]) -> Played:
        """Return the episodes, each up to its own end, and which succeeded."""
        return Played(self.table(indices, seeds), tuple(self._successes))

    def table(self, indices: Sequence[int], seeds: Sequence[int]) -> EpisodeTable:
        """Return the episodes, each up to its own end."""
        steps = np.arange(self.max_steps) < self.lengths[:, None]
        states = np.arange(self.max_steps + 1) <= self.lengths[:, None]
        return EpisodeTable(
            np.array(indices, dtype=np.int64),
            np.array(seeds, dtype=np.int64),
            self.lengths,
            **{name: values[states] for name, values in self._states.items()},
            **{name: values[steps] for name, values in self._steps.items()},
        )
