"""Datasets: episodes in a folder, written by one writer and seen whole or not at all.

``dataset.json`` (`DatasetHeader`) says how the episodes were made; ``shards/00000.arrow`` and so on
hold a fixed number of whole episodes each. Equal episodes give equal bytes of every file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from dynlearn.data.episodes import Episode, EpisodeTable
from dynlearn.data.header import (
    HEADER_FILE,
    DatasetHeader,
    ShardInfo,
    list_datasets,
    load_header,
    read_header,
    require_same,
    save_header,
)
from dynlearn.data.shard_folder import SHARDS, ShardFolder, shard_file
from dynlearn.errors import CorruptData, InvalidInput, NotFound
from dynlearn.storage.folder import Folder, open_folder

__all__ = ["DatasetHeader", "EpisodeStore", "ShardInfo", "list_datasets", "read_header"]


class EpisodeStore:
    """A dataset's episodes: read if it is finished, else written shard by shard.

    Attributes:
        header: what the dataset is.
    """

    def __init__(self, folder: Folder, header: DatasetHeader):
        """Use `create` or `open`."""
        self.header = header
        self._folder = folder
        self._shards = ShardFolder(folder, header)
        self._written: dict[int, tuple[ShardInfo, list[bytes]]] = {}
        self._parts: dict[int, list[str]] = {}

    @classmethod
    def create(cls, uri: str, header: DatasetHeader, resume: bool = False) -> EpisodeStore:
        """Begin a dataset, or with ``resume`` go on with one where it was cut off.

        Resuming keeps the shards that are whole and intact; there may be none yet, or all.

        Args:
            uri: a local path, or a URI such as ``s3://bucket/name``.
            header: what the dataset is to be.
            resume: whether there may be such a dataset already.

        Raises:
            InvalidInput: there is a dataset already, it was begun in another way than the header
                says, or the folder cannot be written to.
        """
        folder = open_folder(uri)
        try:
            existing = load_header(folder)
        except NotFound:
            existing = None
        if existing:
            if not resume:
                raise InvalidInput(_already_there(folder, existing))
            require_same(folder, existing, header)
            if existing.finished:
                finished = cls(folder, existing)
                finished._require_whole()
                return finished
        store = cls(folder, header)
        store._shards.create()
        if existing:
            store._find_written()
        else:
            save_header(folder, header)
        return store

    @classmethod
    def open(cls, uri: str) -> EpisodeStore:
        """Open a finished dataset to read it.

        Raises:
            NotFound: there is no dataset.
            CorruptData: it is not finished, or a shard is missing or has another size.
        """
        folder = open_folder(uri)
        store = cls(folder, load_header(folder))
        store._require_whole()
        return store

    def append(self, episodes: Sequence[Episode] | EpisodeTable) -> None:
        """Write one shard: all its episodes, in the order of their index.

        Raises:
            CorruptData: the episodes do not fit the dataset's spaces or are not finite.
            InvalidInput: they are not those of one shard, or the folder cannot be written to.
        """
        table = episodes if isinstance(episodes, EpisodeTable) else EpisodeTable.of(episodes)
        shard = int(table.indices[0]) // self.header.episodes_per_shard
        expected = self.header.shard_indices(shard)
        if not np.array_equal(table.indices, expected):
            raise InvalidInput(
                f"expected episodes {expected.start} to {expected.stop - 1}, those of shard "
                f"{shard}, got {len(table)} from {table.indices[0]} to {table.indices[-1]}"
            )
        self._written[shard] = self._shards.write(shard, table)
        self._folder.remove(self._parts.pop(shard, []))

    def put_aside(self, episodes: EpisodeTable) -> None:
        """Keep some episodes of one shard that is not whole yet, for whoever resumes.

        Raises:
            CorruptData: the episodes do not fit the dataset's spaces or are not finite.
            InvalidInput: the folder cannot be written to.
        """
        shard = int(episodes.indices[0]) // self.header.episodes_per_shard
        file = self._shards.write_part(shard, episodes)
        self._parts.setdefault(shard, []).append(file)

    def aside(self, shard: int) -> list[EpisodeTable]:
        """Return what `put_aside` kept of a shard, as far as it is intact."""
        tables = []
        for file in self._parts.get(shard, []):
            try:
                tables.append(self._shards.read_intact(file))
            except CorruptData:
                continue
        return tables

    def missing_shards(self) -> list[int]:
        """Return the shards that are still to be written."""
        if self.header.finished:
            return []
        return [shard for shard in range(self.header.shard_count) if shard not in self._written]

    def finish(self) -> DatasetHeader:
        """Mark the dataset as finished and return its header.

        Raises:
            InvalidInput: shards are missing, or the folder cannot be written to.
        """
        if self.header.finished:
            return self.header
        if missing := self.missing_shards():
            raise InvalidInput(
                f"expected all {self.header.shard_count} shards before the end, "
                f"got {len(self._written)}, the first missing one {missing[0]}"
            )
        written = [self._written[shard] for shard in range(self.header.shard_count)]
        digests = [digest for _, those in written for digest in those]
        self._folder.remove([file for files in self._parts.values() for file in files])
        self._parts.clear()
        finished = {
            "finished": True,
            "episodes": self.header.planned,
            "steps": sum(info.steps for info, _ in written),
            "checksum": _checksum(digests),
            "shards": tuple(info for info, _ in written),
        }
        self.header = self.header.model_copy(update=finished)
        save_header(self._folder, self.header)
        return self.header

    def abandon_if_empty(self) -> None:
        """Remove the dataset if it is unfinished and holds no episode yet."""
        if self.header.finished or self._written or self._parts:
            return
        self._folder.remove([HEADER_FILE])
        self._folder.remove_folder(SHARDS)
        self._folder.remove_if_empty()

    def episodes(self, indices: ArrayLike | None = None) -> Iterator[Episode]:
        """Go through the episodes, all or those at ``indices``, in ascending order.

        Raises:
            InvalidInput: there is no episode of such an index.
            CorruptData: a shard cannot be read.
        """
        for table in self._tables(indices):
            yield from table

    def table(self, indices: ArrayLike | None = None) -> EpisodeTable:
        """Return the episodes end to end, all or those at ``indices``, in ascending order.

        Where a whole dataset is one shard, the arrays are read-only views of its file.

        Raises:
            InvalidInput: there is no episode of such an index, or none is asked for.
            CorruptData: a shard cannot be read.
        """
        return EpisodeTable.concatenate(list(self._tables(indices)))

    def verify(self) -> None:
        """Read everything and compare it with the header.

        Raises:
            CorruptData: something was altered; the message names the file.
        """
        digests: list[bytes] = []
        for shard, expected in enumerate(self.header.shards):
            info, own = self._shards.examine(shard)
            if info != expected:
                raise CorruptData(
                    f"expected {shard_file(shard)} of {self._folder.shown} as {HEADER_FILE} "
                    f"describes it, got another; collect the dataset anew"
                )
            digests += own
        if _checksum(digests) != self.header.checksum:
            raise CorruptData(
                f"expected the checksum of all episodes in {HEADER_FILE} of {self._folder.shown}, "
                f"got {self.header.checksum}; collect the dataset anew"
            )

    def _tables(self, indices: ArrayLike | None) -> Iterator[EpisodeTable]:
        if indices is None:
            yield from (self._shards.read(shard) for shard in range(self.header.shard_count))
            return
        chosen = np.sort(np.asarray(indices, dtype=np.int64).reshape(-1))
        if not chosen.size or chosen[0] < 0 or chosen[-1] >= self.header.episodes:
            raise InvalidInput(
                f"expected episode indices from 0 to {self.header.episodes - 1}, got "
                + (f"{chosen[0]} to {chosen[-1]}" if chosen.size else "none")
            )
        shards, positions = np.divmod(chosen, self.header.episodes_per_shard)
        for shard in np.unique(shards).tolist():
            yield self._shards.read(shard).select(positions[shards == shard])

    def _find_written(self) -> None:
        """Keep the shards that are as they were written; the others will be written again."""
        self._parts = self._shards.parts()
        for shard in self._shards.sizes():
            try:
                self._written[shard] = self._shards.examine(shard)
            except CorruptData:
                continue

    def _require_whole(self) -> None:
        header, sizes = self.header, self._shards.sizes()
        if not header.finished:
            there = sum(len(header.shard_indices(shard)) for shard in sizes)
            raise CorruptData(
                f"expected a finished dataset in {self._folder.shown}, got {there} of "
                f"{header.planned} episodes; go on with it by dynlearn collect --resume and the "
                "same options"
            )
        for shard, info in enumerate(header.shards):
            if sizes.get(shard) != info.size:
                raise CorruptData(
                    f"expected {info.size} bytes in {shard_file(shard)} of {self._folder.shown}, "
                    f"got {sizes.get(shard, 'no such file')}; collect the dataset anew"
                )


def _already_there(folder: Folder, existing: DatasetHeader) -> str:
    state, mend = (
        ("is finished", "choose another name")
        if existing.finished
        else ("was cut off", "go on with it by --resume, or choose another name")
    )
    return f"expected the name of a new dataset, got {folder.shown}, which {state}; {mend}"


def _checksum(digests: list[bytes]) -> str:
    return hashlib.sha256(b"".join(digests)).hexdigest()
