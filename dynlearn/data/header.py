"""The header of a dataset: what it is, how it was made, and what must be in its files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from dynlearn.data.faults import Faults
from dynlearn.errors import CorruptData, InvalidInput, NotFound, describe_fault, nearest
from dynlearn.spaces import ActionSpace, ObservationSpace
from dynlearn.storage.folder import Folder, open_folder

HEADER_FILE = "dataset.json"
ENV_KWARGS = "env_kwargs"
"""The option of `DatasetHeader.config` that says what the environment was made with."""
SEED_RANGE = "seed_range"
"""The option that says which seeds the environment takes; absent where it takes any."""
ON_ERROR = "on_error"
"""The option that says what becomes of episodes that fail; absent where they stop a collection."""
_MAX_HEADER_BYTES = 64 * 2**20
_MADE_BY_WRITING = {"finished", "episodes", "steps", "checksum", "shards", "faults"}


class ShardInfo(BaseModel):
    """What the header says of one shard's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=1, description="bytes of the file")
    steps: int = Field(ge=1)
    sha256: str


class DatasetHeader(BaseModel):
    """What a dataset is and how it was made; the content of ``dataset.json``.

    Attributes:
        version: of this format.
        environment: the Gymnasium id.
        versions: of the packages that the content depends on.
        policy: the behaviour policy's name.
        config: every option that the content depends on.
        planned: how many episodes there will be.
        episodes_per_shard: of every shard but the last.
        finished: whether they are all there; until then what follows is empty.
        episodes: how many there are.
        steps: transitions in all of them.
        checksum: SHA-256 of the episodes' digests in the order of their index; it depends on
            neither the sharding nor the header.
        shards: one entry a file.
        faults: of the environment on the way; absent where there were none.
    """

    # The outermost model decides how an unbounded space is written.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    version: Literal[1] = 1
    environment: str
    versions: dict[str, str]
    observation_space: ObservationSpace
    action_space: ActionSpace
    policy: str
    config: dict[str, JsonValue]
    planned: int = Field(ge=1)
    episodes_per_shard: int = Field(ge=1)
    finished: bool = False
    episodes: int = Field(0, ge=0)
    steps: int = Field(0, ge=0)
    checksum: str = ""
    shards: tuple[ShardInfo, ...] = ()
    faults: Faults | None = Field(None, exclude_if=lambda faults: faults is None)

    @property
    def env_kwargs(self) -> dict[str, JsonValue]:
        """What the environment was made with, over what its registration says."""
        given = self.config.get(ENV_KWARGS)
        return given if isinstance(given, dict) else {}

    @property
    def seed_range(self) -> tuple[int, int] | None:
        """The lowest and the highest seed that the environment takes; None where it takes any."""
        match self.config.get(SEED_RANGE):
            case [int(low), int(high)]:
                return low, high
        return None

    @property
    def shard_count(self) -> int:
        """The number of shards, once finished."""
        return -(-self.planned // self.episodes_per_shard)

    def shard_indices(self, shard: int) -> range:
        """Return the indices of the episodes in a shard."""
        first = shard * self.episodes_per_shard
        return range(first, min(first + self.episodes_per_shard, self.planned))


def read_header(uri: str | Path) -> DatasetHeader:
    """Return a dataset's header, finished or not.

    Raises:
        NotFound: there is no dataset.
        CorruptData: the header cannot be read.
    """
    return load_header(open_folder(uri))


def list_datasets(root: str | Path) -> list[str]:
    """Return the names of the datasets in a folder, finished or not."""
    return open_folder(root).folders_with(HEADER_FILE)


def load_header(folder: Folder) -> DatasetHeader:
    """Return the header of the dataset in ``folder``, finished or not.

    Raises:
        NotFound: there is no dataset.
        CorruptData: the header cannot be read.
    """
    try:
        content = folder.read(HEADER_FILE, limit=_MAX_HEADER_BYTES)
    except NotFound:
        known = folder.parent.folders_with(HEADER_FILE) if folder.parent.path else []
        raise NotFound(
            f"expected a dataset in {folder.shown}, got none; "
            f"{nearest(folder.path.rpartition('/')[2], known)}"
        ) from None
    try:
        header = DatasetHeader.model_validate_json(content.to_pybytes())
    except ValidationError as error:
        raise CorruptData(
            f"expected a dataset's header in {HEADER_FILE} of {folder.shown}, "
            f"got {describe_fault(error, 'a fault')}; collect the dataset anew"
        ) from error
    if header.finished and (
        len(header.shards) != header.shard_count or header.episodes != header.planned
    ):
        raise CorruptData(
            f"expected {header.shard_count} shards of {header.planned} episodes in {HEADER_FILE} "
            f"of {folder.shown}, got {len(header.shards)} of {header.episodes}"
        )
    return header


def save_header(folder: Folder, header: DatasetHeader) -> None:
    """Write a folder's header.

    Raises:
        InvalidInput: the folder cannot be written to.
    """
    folder.write(HEADER_FILE, f"{header.model_dump_json(indent=2)}\n".encode())


def require_same(folder: Folder, existing: DatasetHeader, planned: DatasetHeader) -> None:
    """Check that a dataset was begun in the way that is planned now.

    One that was to stop at a fault has none so far, and may go on in another way.

    Raises:
        InvalidInput: it was not; the message names the options that differ.
    """
    old, new = _flat(existing), _flat(planned)
    if ON_ERROR not in old:
        new.pop(ON_ERROR, None)
    different = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if different:
        changes = ", ".join(f"{key} ({old.get(key)}, now {new.get(key)})" for key in different[:5])
        raise InvalidInput(
            f"expected the options with which {folder.shown} was begun, got others: {changes}; "
            "give the same, or choose another name"
        )


def checksum_of(digests: Sequence[bytes]) -> str:
    """Return the checksum of episodes whose digests come in the order of their index."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _flat(header: DatasetHeader) -> dict[str, object]:
    fields = header.model_dump(mode="json", exclude=_MADE_BY_WRITING)
    for group in ("config", "versions"):
        fields |= fields.pop(group)
    return fields
