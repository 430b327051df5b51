"""Episodes: what an environment gave from one reset to the end, and many of them in flat arrays.

An episode of T steps holds T+1 observations, so that no transition crosses a reset; `terminated`
(the task ended) and `truncated` (time ran out) are kept apart. `EpisodeTable` lays K episodes end
to end, the form in which they are stored and learned from.

Shapes: K episodes, T steps, O observation, A action, G goal.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dynlearn.data.arrays import ARRAYS, NO_SEED, STATE_ARRAYS, STEP_ARRAYS, Array, check_arrays
from dynlearn.errors import CorruptData


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode of T steps.

    Attributes:
        index: its place in the dataset.
        seed: what the environment was reset with, if known.
        observations: [T+1, O], in the environment's dtype.
        actions: [T, A], or int64 [T] where actions are discrete.
        rewards: float64 [T].
        terminated: bool [T].
        truncated: bool [T].
        achieved_goals: [T+1, G], where the environment has goals.
        desired_goals: [T+1, G], where the environment has goals.

    Raises:
        CorruptData: an array has a wrong shape or dtype, or holds NaN or infinity.
    """

    index: int
    seed: int | None
    observations: Array
    actions: Array
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    achieved_goals: Array | None = None
    desired_goals: Array | None = None

    def __post_init__(self) -> None:
        lengths = np.array([len(self.rewards)])
        check_arrays(
            {name: getattr(self, name) for name in ARRAYS}, np.array([self.index]), lengths
        )

    def __len__(self) -> int:
        """Return T."""
        return len(self.rewards)


@dataclass(frozen=True, eq=False)
class EpisodeTable:
    """K episodes end to end: the arrays of `Episode`, each concatenated over the episodes.

    Read from a dataset, the arrays may be read-only views of the file.

    Attributes:
        indices: int64 [K], each episode's place in the dataset.
        seeds: int64 [K], `NO_SEED` where unknown.
        lengths: int64 [K], the T of each episode.
        observations: [sum(T+1), O].
        actions: [sum(T), A], or int64 [sum(T)] where actions are discrete.
        rewards: float64 [sum(T)].
        terminated: bool [sum(T)].
        truncated: bool [sum(T)].
        achieved_goals: [sum(T+1), G] or None.
        desired_goals: [sum(T+1), G] or None.
    """

    indices: NDArray[np.int64]
    seeds: NDArray[np.int64]
    lengths: NDArray[np.int64]
    observations: Array
    actions: Array
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    achieved_goals: Array | None = None
    desired_goals: Array | None = None

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> EpisodeTable:
        """Lay episodes end to end.

        Raises:
            CorruptData: there are none, or they differ in columns or dtypes.
        """
        return cls.concatenate([_single(episode) for episode in episodes])

    @classmethod
    def concatenate(cls, tables: Sequence[EpisodeTable]) -> EpisodeTable:
        """Lay tables end to end; a single one is returned as it is.

        Raises:
            CorruptData: there are none, or they differ in columns or dtypes.
        """
        if not tables:
            raise CorruptData("expected at least one episode, got none")
        if len(tables) == 1:
            return tables[0]
        layout = tables[0].layout()
        for table in tables[1:]:
            if table.layout() != layout:
                raise CorruptData(
                    f"expected arrays like those of episode {tables[0].indices[0]} ({layout}), "
                    f"got {table.layout()} in episode {table.indices[0]}"
                )

        def join(name: str) -> Any:
            parts = [getattr(table, name) for table in tables]
            return None if parts[0] is None else np.concatenate(parts)

        return cls(**{name: join(name) for name in ("indices", "seeds", "lengths", *ARRAYS)})

    def __len__(self) -> int:
        """Return K."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[Episode]:
        """Go through the episodes; their arrays are views."""
        step, state = 0, 0
        for index, seed, length in zip(
            self.indices.tolist(), self.seeds.tolist(), self.lengths.tolist(), strict=True
        ):
            states, steps = slice(state, state + length + 1), slice(step, step + length)
            rows = {name: _part(getattr(self, name), states) for name in STATE_ARRAYS}
            rows |= {name: _part(getattr(self, name), steps) for name in STEP_ARRAYS}
            yield Episode(index, None if seed == NO_SEED else seed, **rows)
            step, state = step + length, state + length + 1

    @property
    def steps(self) -> int:
        """The number of transitions, sum(T)."""
        return len(self.rewards)

    def layout(self) -> str:
        """Return each array's name, dtype and number of columns, as text."""
        arrays = [(name, getattr(self, name)) for name in ARRAYS]
        return ", ".join(
            f"{name} {values.dtype.name}{list(values.shape[1:]) or ''}"
            for name, values in arrays
            if values is not None
        )

    def select(self, positions: ArrayLike) -> EpisodeTable:
        """Return the episodes at ``positions`` [any number], in that order, copied."""
        chosen = np.asarray(positions, dtype=np.int64).reshape(-1)
        lengths = self.lengths[chosen]
        first_step = np.cumsum(self.lengths) - self.lengths
        steps = _ranges(first_step[chosen], lengths)
        states = _ranges((first_step + np.arange(len(self)))[chosen], lengths + 1)
        rows: dict[str, Any] = {name: _part(getattr(self, name), states) for name in STATE_ARRAYS}
        rows |= {name: _part(getattr(self, name), steps) for name in STEP_ARRAYS}
        return EpisodeTable(self.indices[chosen], self.seeds[chosen], lengths, **rows)

    def cut(self, position: int, steps: int) -> Iterator[EpisodeTable]:
        """Go through the parts of one episode, of so many steps each; their arrays are views."""
        length = int(self.lengths[position])
        for first in range(0, length, steps):
            yield self.stretch(position, first, min(first + steps, length))

    def stretch(self, position: int, first: int, last: int) -> EpisodeTable:
        """Return steps ``first`` to ``last - 1`` of an episode as one; its arrays are views."""
        step = int(self.lengths[:position].sum())
        steps = slice(step + first, step + last)
        states = slice(steps.start + position, steps.stop + position + 1)
        rows: dict[str, Any] = {name: _part(getattr(self, name), states) for name in STATE_ARRAYS}
        rows |= {name: _part(getattr(self, name), steps) for name in STEP_ARRAYS}
        one = slice(position, position + 1)
        length = np.array([last - first], dtype=np.int64)
        return EpisodeTable(self.indices[one], self.seeds[one], length, **rows)

    def check(self) -> None:
        """Check what `Episode` checks, for all episodes at once.

        Raises:
            CorruptData: an array has a wrong shape or dtype, or holds NaN or infinity.
        """
        check_arrays({name: getattr(self, name) for name in ARRAYS}, self.indices, self.lengths)

    def digests(self) -> list[bytes]:
        """Return the SHA-256 of each episode: of its index, seed, layout and every array."""
        layout = self.layout().encode()
        arrays = [(name in STATE_ARRAYS, getattr(self, name)) for name in ARRAYS]
        # (rows more than T, bytes a row, all bytes) of each array
        flat = [
            (int(is_state), values.nbytes // len(values), _bytes(values))
            for is_state, values in arrays
            if values is not None
        ]
        digests = []
        step = 0
        for position, (index, seed, length) in enumerate(
            zip(self.indices.tolist(), self.seeds.tolist(), self.lengths.tolist(), strict=True)
        ):
            content = hashlib.sha256(layout + struct.pack("<qqq", index, seed, length))
            for more, width, data in flat:
                first = step + more * position
                content.update(data[first * width : (first + length + more) * width])
            digests.append(content.digest())
            step += length
        return digests


def _bytes(values: Array) -> memoryview:
    return memoryview(np.ascontiguousarray(values).data).cast("B")


def _part(values: Array | None, rows: slice | NDArray[np.int64]) -> Any:
    return None if values is None else values[rows]


def _single(episode: Episode) -> EpisodeTable:
    return EpisodeTable(
        np.array([episode.index], dtype=np.int64),
        np.array([NO_SEED if episode.seed is None else episode.seed], dtype=np.int64),
        np.array([len(episode)], dtype=np.int64),
        **{name: getattr(episode, name) for name in ARRAYS},
    )


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return start, start + 1, ..., start + count - 1 of each pair, end to end."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(counts.sum())
