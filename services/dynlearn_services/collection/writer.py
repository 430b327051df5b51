"""What puts blocks of episodes together to shards, writes them, and tells how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.faults import EpisodeFault, Faults
from dynlearn.data.writer import EpisodeWriter
from dynlearn_services.collection.measures import Measures
from dynlearn_services.collection.recorder import Played

_SECONDS_UNSAVED = 5.0
"""After which the episodes of a shard that is not whole yet are kept aside on the disk."""


@dataclass(frozen=True)
class CollectProgress:
    """How far a collection has come.

    Attributes:
        episodes: how many there are, those from before a resumption included.
        planned: how many there will be.
        steps: transitions played now.
        steps_per_s: at which they arrive.
        contact_share: of the transitions played now, if the environment's task knows contact.
        success_share: of the episodes played now, those whose last transition ends in success, if
            the environment's task, or else the environment, knows success.
        faults: of episodes that were cut or skipped now.
    """

    episodes: int
    planned: int
    steps: int
    steps_per_s: float
    contact_share: float | None
    success_share: float | None
    faults: int = 0


_Episodes = tuple[EpisodeTable, tuple[EpisodeFault, ...]]
"""With the faults that befell them."""


class _Shard:
    """The episodes that there are of a shard that is not whole yet."""

    def __init__(self, indices: range, kept: Iterable[_Episodes]):
        self.indices = indices
        self.parts: list[_Episodes] = []
        self.present: set[int] = set()
        for table, faults in kept:
            episodes = set(table.indices.tolist())
            if episodes <= set(indices) and self.present.isdisjoint(episodes):
                self.add(table, faults)
        self.saved = len(self.parts)

    def add(self, table: EpisodeTable, faults: tuple[EpisodeFault, ...]) -> None:
        self.parts.append((table, faults))
        self.present.update(table.indices.tolist())

    def whole(self) -> _Episodes | None:
        """Return all its episodes in order, once they are there."""
        if len(self.present) < len(self.indices):
            return None
        table, faults = _join(self.parts)
        return table.select(np.argsort(table.indices)), Faults.of(faults).each

    def unsaved(self) -> _Episodes | None:
        """Return what has come since this was asked last."""
        new, self.saved = self.parts[self.saved :], len(self.parts)
        return _join(new) if new else None


def _join(parts: list[_Episodes]) -> _Episodes:
    return (
        EpisodeTable.concatenate([table for table, _ in parts]),
        tuple(fault for _, faults in parts for fault in faults),
    )


class ShardWriter:
    """Puts blocks together to shards, and tells how far it is."""

    def __init__(self, dataset: EpisodeWriter, on_progress: Callable[[CollectProgress], None]):
        self._dataset = dataset
        self._on_progress = on_progress
        self._measures = Measures(dataset.header.environment)
        self._shards = {
            shard: _Shard(dataset.header.shard_indices(shard), dataset.aside(shard))
            for shard in dataset.missing_shards()
        }
        self._episodes = dataset.header.planned - sum(
            len(shard.indices) - len(shard.present) for shard in self._shards.values()
        )
        self._steps = self._first_steps = self._faults = 0
        self._began = self._last_save = time.monotonic()

    def missing_blocks(self, size: int) -> list[range]:
        """Return the blocks of at most ``size`` episodes that are not there yet."""
        blocks = [
            shard.indices[first : first + size]
            for shard in self._shards.values()
            for first in range(0, len(shard.indices), size)
        ]
        present = set().union(*(shard.present for shard in self._shards.values()))
        return [block for block in blocks if block.start not in present]

    def take(self, played: Played) -> None:
        """Take a block; write what becomes whole by it."""
        table = played.table
        number = int(table.indices[0]) // self._dataset.header.episodes_per_shard
        shard = self._shards[number]
        shard.add(table, played.faults)
        whole = shard.whole()
        if whole is not None:
            self._dataset.append(*whole)
            del self._shards[number]
        if time.monotonic() - self._last_save > _SECONDS_UNSAVED:
            self.save()
        self._measures.add(played)
        self._faults += len(played.faults)
        self._report(len(table), table.steps)

    def save(self) -> None:
        """Keep aside what is not whole yet."""
        for shard in self._shards.values():
            if unsaved := shard.unsaved():
                self._dataset.put_aside(*unsaved)
        self._last_save = time.monotonic()

    def _report(self, episodes: int, steps: int) -> None:
        now = time.monotonic()
        if not self._steps:
            self._first_steps, self._first_arrival = steps, now
        self._episodes += episodes
        self._steps += steps
        # From the first block on, so that the start of Ray does not count.
        rate = (
            (self._steps - self._first_steps) / (now - self._first_arrival)
            if self._steps > self._first_steps
            else steps / (now - self._began)
        )
        self._on_progress(
            CollectProgress(
                self._episodes,
                self._dataset.header.planned,
                self._steps,
                rate,
                self._measures.contact_share,
                self._measures.success_share,
                self._faults,
            )
        )
