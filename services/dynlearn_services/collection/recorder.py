"""Recorder: episodes as they are played, many at once.

Shapes: B episodes of a block, T steps, O observation, A action, G goal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.faults import EpisodeFault
from dynlearn.errors import CorruptData
from dynlearn.spaces import ActionSpace, ObservationSpace

Array = NDArray[Any]
Rows = int | slice

_NUMBERS, _FLAGS = {float, np.float64, np.float32}, {bool, np.bool_}
"""What rewards and ends are where nothing is odd."""


class Played(NamedTuple):
    """Episodes that were played.

    Attributes:
        table: what was taken down.
        successes: whether each ended in success, as its environment says; None where it does not.
        faults: that befell them, in the order in which each met them.
    """

    table: EpisodeTable
    successes: tuple[bool | None, ...]
    faults: tuple[EpisodeFault, ...] = ()

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Return the episodes of all parts."""
        return cls(
            EpisodeTable.concatenate([part.table for part in parts]),
            tuple(one for part in parts for one in part.successes),
            tuple(fault for part in parts for fault in part.faults),
        )


class Recorder:
    """Takes down B episodes of at most `max_steps` steps.

    Attributes:
        max_steps: T at most.
        good_steps: how many steps of what is being played are taken down and well; -1 until its
            first step.
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
        self.good_steps = -1
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

    def begin(self, rows: Rows) -> None:
        """Make ready for episodes; what was taken down of another attempt at them is forgotten."""
        self.good_steps = -1
        self.lengths[rows] = 0
        for row in range(len(self.lengths))[rows] if isinstance(rows, slice) else (rows,):
            self._successes[row] = None

    def state(self, rows: Rows, step: int, observation: Any) -> None:
        """Take down what was observed after ``step`` steps.

        Raises:
            CorruptData: it is something else than the observation space says.
        """
        parts = observation if isinstance(observation, Mapping) else {"observation": observation}
        for name, array in self._states.items():
            part, room = np.asarray(parts[name[:-1]]), array[rows, step]
            if part.shape != room.shape:
                raise CorruptData(
                    f"expected {name} of shape {room.shape} as the observation space says, "
                    f"got {part.shape}"
                )
            _put(name, room, part)

    def step(
        self, rows: Rows, step: int, action: Any, reward: Any, terminated: Any, truncated: Any
    ) -> None:
        """Take down the step that led from state ``step`` to the next.

        Raises:
            CorruptData: the environment gave something else than a number and two flags a row.
        """
        steps = self._steps
        steps["actions"][rows, step] = action
        given = {"rewards": reward, "terminated": terminated, "truncated": truncated}
        for name, value in given.items():
            plain = _NUMBERS if name == "rewards" else _FLAGS
            if type(value) in plain and isinstance(rows, int):
                steps[name][rows, step] = value
                continue
            room = steps[name][rows, step : step + 1].reshape(-1)
            if np.size(value) != room.size:
                raise CorruptData(
                    f"expected {'one' if room.size == 1 else room.size} of {name} a step, got "
                    f"them of shape {np.shape(value)}"
                )
            # Of shape [1], as some environments give it.
            _put(name, room, np.reshape(value, -1))

    def success(self, row: int, is_success: Any) -> None:
        """Take down what the environment says of the success of an episode's last step."""
        self._successes[row] = None if is_success is None else bool(is_success)

    def check(self, row: int, length: int) -> None:
        """Check the first ``length`` steps of an episode that has been taken down.

        Raises:
            CorruptData: it holds numbers that are not finite; `good_steps` then are those before.
        """
        if length < 0:
            return
        states = {name: values[row, : length + 1] for name, values in self._states.items()}
        steps = {name: values[row, :length] for name, values in self._steps.items()}
        # A state follows the step before it.
        bad = {name: _first_not_finite(values) - 1 for name, values in states.items()}
        bad |= {name: _first_not_finite(values) for name, values in steps.items()}
        name = min(bad, key=lambda name: bad[name])
        if bad[name] < length:
            self.good_steps = max(0, bad[name])
            raise CorruptData(f"{name} that are not finite")

    def cut(self, row: int) -> None:
        """End an episode after its good steps, of which there must be one, as if time ran out."""
        self.lengths[row] = self.good_steps
        self._successes[row] = None
        for name in ("terminated", "truncated"):
            self._steps[name][row, self.good_steps - 1] = name == "truncated"

    def played(
        self, indices: Sequence[int], seeds: Sequence[int], faults: Sequence[EpisodeFault] = ()
    ) -> Played:
        """Return the episodes, each up to its own end, which succeeded, and what befell them."""
        return Played(self.table(indices, seeds), tuple(self._successes), tuple(faults))

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


def _put(name: str, room: Array, array: Array) -> None:
    """Put numbers where they belong; NumPy itself would take texts, and cut fractions off."""
    if array.dtype == room.dtype:
        room[...] = array
        return
    if array.dtype.kind not in "biuf":
        raise CorruptData(f"expected {name} of numbers, got {array.dtype}")
    # Beyond the room's own range they become infinite, which is found.
    with np.errstate(over="ignore", invalid="ignore"):
        room[...] = array
        if room.dtype.kind != "f" and not (room == array).all():
            raise CorruptData(f"expected {name} of {room.dtype}, got {array.reshape(-1)[:4]}")


def _first_not_finite(values: Array) -> int:
    """Return the first row with NaN or infinity, or how many rows there are."""
    if values.dtype.kind != "f":
        return len(values)
    bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    return int(np.argmax(bad)) if bad.any() else len(values)
