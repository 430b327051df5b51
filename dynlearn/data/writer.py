"""Datasets as they are written: shard by shard, and gone on with where that was cut off.

Equal episodes give equal bytes of every file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynlearn.data.episodes import Episode, EpisodeTable
from dynlearn.data.faults import MOST_FAULTS, EpisodeFault, Faults
from dynlearn.data.header import (
    HEADER_FILE,
    DatasetHeader,
    checksum_of,
    load_header,
    require_same,
    save_header,
)
from dynlearn.data.shard_folder import SHARDS, ShardFolder, Written
from dynlearn.errors import CorruptData, InvalidInput, NotFound
from dynlearn.storage.folder import Folder, open_folder
from dynlearn.storage.locks import NoLock, WriteLock, lock_folder


class EpisodeWriter:
    """The one writer of a dataset that is not finished yet; `close` lets go of it.

    Attributes:
        header: what the dataset is.
    """

    def __init__(self, folder: Folder, header: DatasetHeader, lock: WriteLock, begun: bool):
        """Use `create`."""
        self.header = header
        self._lock = lock
        self._begun = begun
        self._folder = folder
        self._shards = ShardFolder(folder, header)
        self._written: dict[int, Written] = {}
        self._parts: dict[int, set[str]] = {}

    @classmethod
    def create(cls, uri: str | Path, header: DatasetHeader, resume: bool = False) -> EpisodeWriter:
        """Begin a dataset, or with ``resume`` go on with one where it was cut off.

        Resuming keeps the shards that are whole and intact; there may be none yet, or all.

        Args:
            uri: a local path, or a URI such as ``s3://bucket/name``.
            header: what the dataset is to be.
            resume: whether there may be such a dataset already.

        Raises:
            Busy: another process writes to it.
            InvalidInput: there is a dataset already, it was begun in another way than the header
                says, or the folder cannot be written to.
        """
        folder = open_folder(uri)
        existing = _find_header(folder)
        if existing and existing.finished:
            return cls._go_on(folder, existing, header, resume, NoLock())
        folder.create("")
        lock = lock_folder(folder, f"the dataset {folder.shown}")
        try:
            # Whoever had the lock until now may have begun or finished it.
            if existing := _find_header(folder):
                return cls._go_on(folder, existing, header, resume, lock)
            writer = cls(folder, header, lock, begun=True)
            writer._shards.create()
            save_header(folder, header)
            return writer
        except BaseException:
            lock.release()
            folder.remove_if_empty()
            raise

    @classmethod
    def _go_on(
        cls,
        folder: Folder,
        existing: DatasetHeader,
        header: DatasetHeader,
        resume: bool,
        lock: WriteLock,
    ) -> EpisodeWriter:
        if not resume:
            raise InvalidInput(_already_there(folder, existing))
        require_same(folder, existing, header)
        if existing.finished:
            writer = cls(folder, existing, lock, begun=False)
            writer._shards.require_whole()
            writer.close()
        else:
            writer = cls(folder, header, lock, begun=False)
            if existing != header:
                save_header(folder, header)
            writer._shards.create()
            writer._find_written()
        return writer

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write to the dataset; a part of it stays for whoever resumes it."""
        self._lock.release()

    def append(
        self, episodes: Sequence[Episode] | EpisodeTable, faults: Sequence[EpisodeFault] = ()
    ) -> None:
        """Write one shard: all its episodes, in the order of their index, and their faults.

        Raises:
            CorruptData: the episodes do not fit the dataset's spaces or are not finite, or there
                are too many faults.
            Busy: another process has taken the dataset over.
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
        total = len(faults) + sum(len(written.faults) for written in self._written.values())
        if total > MOST_FAULTS:
            raise CorruptData(
                f"expected at most {MOST_FAULTS} faults in {self._folder.shown}, got more, the "
                f"last at step {faults[-1].step} of episode {faults[-1].episode}: "
                f"{faults[-1].what}; mend the environment"
            )
        self._lock.require()
        self._written[shard] = self._shards.write(shard, table, faults)
        self._folder.remove(sorted(self._parts.pop(shard, ())))

    def put_aside(self, episodes: EpisodeTable, faults: Sequence[EpisodeFault] = ()) -> None:
        """Keep some episodes of one shard that is not whole yet, for whoever resumes.

        What was kept before of the same first episode gives way to it.

        Raises:
            CorruptData: the episodes do not fit the dataset's spaces or are not finite.
            InvalidInput: the folder cannot be written to.
        """
        shard = int(episodes.indices[0]) // self.header.episodes_per_shard
        self._lock.require()
        file = self._shards.write_part(shard, episodes, faults)
        self._parts.setdefault(shard, set()).add(file)

    def aside(self, shard: int) -> list[tuple[EpisodeTable, tuple[EpisodeFault, ...]]]:
        """Return what `put_aside` kept of a shard, as far as it is intact."""
        kept = []
        for file in sorted(self._parts.get(shard, ())):
            try:
                kept.append(self._shards.read_intact(file))
            except CorruptData:
                continue
        return kept

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
        digests = [digest for one in written for digest in one.digests]
        faults = Faults.of(fault for one in written for fault in one.faults)
        self._lock.require()
        self._folder.remove(sorted(file for files in self._parts.values() for file in files))
        self._parts.clear()
        finished = {
            "finished": True,
            "episodes": self.header.planned,
            "steps": sum(one.info.steps for one in written),
            "checksum": checksum_of(digests),
            "shards": tuple(one.info for one in written),
            "faults": faults if faults.each else None,
        }
        self.header = self.header.model_copy(update=finished)
        save_header(self._folder, self.header)
        self.close()
        return self.header

    def abandon_if_empty(self) -> None:
        """Close it, and remove the dataset if this writer began it and no episode came."""
        if self._begun and not (self.header.finished or self._written or self._parts):
            self._lock.require()
            self._folder.remove([HEADER_FILE])
            self._folder.remove_folder(SHARDS)
            self.close()
            self._folder.remove_if_empty()
        self.close()

    def _find_written(self) -> None:
        """Keep the shards that are as they were written; the others will be written again."""
        self._parts = self._shards.parts()
        for shard in self._shards.sizes():
            try:
                self._written[shard] = self._shards.examine(shard)
            except CorruptData:
                continue


def _find_header(folder: Folder) -> DatasetHeader | None:
    try:
        return load_header(folder)
    except NotFound:
        return None


def _already_there(folder: Folder, existing: DatasetHeader) -> str:
    state, mend = (
        ("is finished", "choose another name")
        if existing.finished
        else ("was cut off", "go on with it by --resume, or choose another name")
    )
    return f"expected the name of a new dataset, got {folder.shown}, which {state}; {mend}"
