"""The files under ``shards/``: whole shards, and what a writer keeps aside of those to come.

Shard 3 is ``00003.arrow``; its parts are ``.00003.1510.part``, named after their first episode.
Files whose name begins with a dot are a writer's own: readers ignore them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.faults import EpisodeFault
from dynlearn.data.header import DatasetHeader, ShardInfo
from dynlearn.data.shards import Shard, decode_shard, encode_shard, shard_schema
from dynlearn.errors import CorruptData, NotFound
from dynlearn.storage.files import ASIDE
from dynlearn.storage.folder import Folder

SHARDS = "shards"
_SHARD = re.compile(r"(\d{5,})\.arrow")
_PART = re.compile(r"\.(\d{5,})\.\d+\.part")


def shard_file(shard: int) -> str:
    """Return the path of a shard inside the dataset's folder."""
    return f"{SHARDS}/{shard:05d}.arrow"


class Written(NamedTuple):
    """A shard that is whole.

    Attributes:
        info: what the header must say of it.
        digests: of its episodes.
        faults: that befell them.
    """

    info: ShardInfo
    digests: list[bytes]
    faults: tuple[EpisodeFault, ...]


class ShardFolder:
    """The shards of one dataset."""

    def __init__(self, folder: Folder, header: DatasetHeader):
        """Take the dataset's folder, which need not exist yet."""
        self._folder = folder
        self._header = header
        self._schema = shard_schema(header.observation_space, header.action_space)

    def sizes(self) -> dict[int, int]:
        """Return the bytes of each shard that there is, in order."""
        files = self._folder.sizes(SHARDS).items()
        sizes = {int(match[1]): size for name, size in files if (match := _SHARD.fullmatch(name))}
        return {shard: sizes[shard] for shard in sorted(sizes) if shard < self._header.shard_count}

    def parts(self) -> dict[int, set[str]]:
        """Return the files that are kept aside of each shard."""
        parts: dict[int, set[str]] = {}
        for name in self._folder.sizes(SHARDS):
            if match := _PART.fullmatch(name):
                parts.setdefault(int(match[1]), set()).add(f"{SHARDS}/{name}")
        return parts

    def require_whole(self) -> None:
        """Check that the dataset is finished, and its shards as large as its header says.

        Raises:
            CorruptData: it is not, or one is not.
        """
        header, sizes = self._header, self.sizes()
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

    def read(self, shard: int) -> EpisodeTable:
        """Return a shard's episodes.

        Raises:
            CorruptData: it cannot be read.
        """
        return self._decode(shard_file(shard)).table

    def require_same_bytes(self, shard: int) -> None:
        """Check a shard's file against the header of a finished dataset.

        Raises:
            CorruptData: it is not as it was written, or cannot be read.
        """
        content = self._folder.read(shard_file(shard))
        if _digest(content) != self._header.shards[shard].sha256:
            raise CorruptData(self._altered(shard_file(shard)))

    def examine(self, shard: int) -> Written:
        """Return what a shard is, with its episodes' digests recomputed.

        Raises:
            CorruptData: it cannot be read, or is not as it was written.
        """
        table, faults = self.read_intact(shard_file(shard))
        if not np.array_equal(table.indices, self._header.shard_indices(shard)):
            raise CorruptData(self._altered(shard_file(shard)))
        info = _describe(self._folder.read(shard_file(shard)), table)
        return Written(info, table.digests(), faults)

    def read_intact(self, file: str) -> tuple[EpisodeTable, tuple[EpisodeFault, ...]]:
        """Return the episodes of a shard or part, and their faults, if they are as written.

        Raises:
            CorruptData: they are not, or cannot be read.
        """
        table, digests, faults = self._decode(file)
        if digests.to_pylist() != table.digests():
            raise CorruptData(self._altered(file))
        return table, faults

    def write(self, shard: int, table: EpisodeTable, faults: Sequence[EpisodeFault]) -> Written:
        """Write a shard, and return what it is.

        Raises:
            CorruptData: the episodes do not fit the dataset's spaces or are not finite.
            InvalidInput: the folder cannot be written to.
        """
        content, digests = self._encode(table, faults)
        self._folder.write(shard_file(shard), content)
        return Written(_describe(content, table), digests, tuple(faults))

    def write_part(self, shard: int, table: EpisodeTable, faults: Sequence[EpisodeFault]) -> str:
        """Keep some of a shard's episodes aside; return the file.

        Raises:
            CorruptData: the episodes do not fit the dataset's spaces or are not finite.
            InvalidInput: the folder cannot be written to.
        """
        file = f"{SHARDS}/.{shard:05d}.{table.indices[0]}.part"
        self._folder.write(file, self._encode(table, faults)[0])
        return file

    def create(self) -> None:
        """Create the folder if need be; remove half-written files.

        Raises:
            InvalidInput: the folder cannot be written to.
        """
        self._folder.create(SHARDS)
        for prefix in ("", f"{SHARDS}/"):
            names = self._folder.sizes(prefix.rstrip("/"))
            self._folder.remove(
                [prefix + name for name in names if name.startswith(".") and name.endswith(ASIDE)]
            )

    def _encode(
        self, table: EpisodeTable, faults: Sequence[EpisodeFault]
    ) -> tuple[pa.Buffer, list[bytes]]:
        table.check()
        digests = table.digests()
        return encode_shard(table, digests, self._schema, faults), digests

    def _decode(self, file: str) -> Shard:
        try:
            return decode_shard(self._folder.read(file), self._schema)
        except (CorruptData, NotFound) as error:
            raise CorruptData(f"{file} of {self._folder.shown}: {error}") from error

    def _altered(self, file: str) -> str:
        return (
            f"expected {file} of {self._folder.shown} as it was written, got an altered one; "
            "collect the dataset anew"
        )


def _describe(content: pa.Buffer, table: EpisodeTable) -> ShardInfo:
    return ShardInfo(size=content.size, steps=table.steps, sha256=_digest(content))


def _digest(content: pa.Buffer) -> str:
    return hashlib.sha256(memoryview(content)).hexdigest()
