"""Datasets: episodes in a folder, seen whole or not at all.

``dataset.json`` (`DatasetHeader`) says how the episodes were made; ``shards/00000.arrow`` and so on
hold a fixed number of whole episodes each; `dynlearn.data.writer` writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dynlearn.data.episodes import Episode, EpisodeTable
from dynlearn.data.header import (
    HEADER_FILE,
    DatasetHeader,
    checksum_of,
    load_header,
)
from dynlearn.data.shard_folder import ShardFolder, shard_file
from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.storage.folder import Folder, open_folder


class EpisodeStore:
    """A finished dataset's episodes.

    The bytes of each shard are held against the header when it is first read.

    Attributes:
        header: what the dataset is.
        folder: where it is.
    """

    def __init__(self, folder: Folder, header: DatasetHeader):
        """Use `open`."""
        self.header = header
        self.folder = folder
        self._shards = ShardFolder(folder, header)
        self._checked: set[int] = set()

    @classmethod
    def open(cls, uri: str | Path) -> EpisodeStore:
        """Open a finished dataset to read it.

        Raises:
            NotFound: there is no dataset.
            CorruptData: it is not finished, or a shard is missing or has another size.
        """
        folder = open_folder(uri)
        store = cls(folder, load_header(folder))
        store._shards.require_whole()
        return store

    def episodes(self, indices: ArrayLike | None = None) -> Iterator[Episode]:
        """Go through the episodes, all or those at ``indices``, in ascending order.

        Raises:
            InvalidInput: there is no episode of such an index.
            CorruptData: a shard cannot be read, or was altered.
        """
        for table in self._tables(indices):
            yield from table

    def pieces(self, indices: ArrayLike, steps: int) -> Iterator[EpisodeTable]:
        """Go through the episodes at ``indices`` in ascending order, about so many steps at a time.

        A longer episode comes in parts, each of which looks like an episode of fewer steps.

        Raises:
            InvalidInput: there is no episode of such an index, or none is asked for.
            CorruptData: a shard cannot be read, or was altered.
        """
        for table, positions in self._chosen(indices):
            for first, last in _spans(table.lengths[positions], steps):
                part = positions[first:last]
                if last - first > 1 or table.lengths[part[0]] <= steps:
                    yield table.select(part)
                else:
                    yield from table.cut(int(part[0]), steps)

    def table(self, indices: ArrayLike | None = None) -> EpisodeTable:
        """Return the episodes end to end, all or those at ``indices``, in ascending order.

        Where a whole dataset is one shard, the arrays are read-only views of its file.

        Raises:
            InvalidInput: there is no episode of such an index, or none is asked for.
            CorruptData: a shard cannot be read, or was altered.
        """
        return EpisodeTable.concatenate(list(self._tables(indices)))

    def verify(self) -> None:
        """Read everything and compare it with the header.

        Raises:
            CorruptData: something was altered; the message names the file.
        """
        digests: list[bytes] = []
        for shard, expected in enumerate(self.header.shards):
            info, own, _ = self._shards.examine(shard)
            if info != expected:
                raise CorruptData(
                    f"expected {shard_file(shard)} of {self.folder.shown} as {HEADER_FILE} "
                    f"describes it, got another; collect the dataset anew"
                )
            digests += own
        if checksum_of(digests) != self.header.checksum:
            raise CorruptData(
                f"expected the checksum of all episodes in {HEADER_FILE} of {self.folder.shown}, "
                f"got {self.header.checksum}; collect the dataset anew"
            )

    def tables(self) -> Iterator[EpisodeTable]:
        """Go through all episodes, a file at a time.

        Raises:
            CorruptData: a shard cannot be read, or was altered.
        """
        yield from (self._read(shard) for shard in range(self.header.shard_count))

    def _tables(self, indices: ArrayLike | None) -> Iterator[EpisodeTable]:
        if indices is None:
            yield from self.tables()
            return
        for table, positions in self._chosen(indices):
            yield table.select(positions)

    def _chosen(self, indices: ArrayLike) -> Iterator[tuple[EpisodeTable, NDArray[np.int64]]]:
        """Go through the shards with episodes at ``indices``, and their places in each."""
        chosen = self._checked_indices(indices)
        shards, positions = np.divmod(chosen, self.header.episodes_per_shard)
        for shard in np.unique(shards).tolist():
            yield self._read(shard), positions[shards == shard]

    def _checked_indices(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Return indices of episodes in ascending order."""
        chosen = np.sort(np.asarray(indices, dtype=np.int64).reshape(-1))
        if not chosen.size or chosen[0] < 0 or chosen[-1] >= self.header.episodes:
            raise InvalidInput(
                f"expected episode indices from 0 to {self.header.episodes - 1}, got "
                + (f"{chosen[0]} to {chosen[-1]}" if chosen.size else "none")
            )
        return chosen

    def _read(self, shard: int) -> EpisodeTable:
        table = self._shards.read(shard)
        if shard not in self._checked:
            # After what can say more exactly what is wrong.
            self._shards.require_same_bytes(shard)
            self._checked.add(shard)
        return table


def _spans(lengths: NDArray[np.int64], steps: int) -> Iterator[tuple[int, int]]:
    """Return where neighbouring episodes begin and end that have about so many steps together."""
    first, total = 0, 0
    for position, length in enumerate(lengths.tolist()):
        if position > first and total + length > steps:
            yield first, position
            first, total = position, 0
        total += length
    if len(lengths):
        yield first, len(lengths)
