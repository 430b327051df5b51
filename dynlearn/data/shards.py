"""Shards: episodes as an Arrow IPC file, one row an episode.

Each row holds lists (of fixed-size lists, where an array has columns), so that a file's single
record batch keeps every array of all its episodes in one contiguous buffer: reading is a view. What
faults befell them is in the schema's metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynlearn.data.arrays import ARRAYS, NO_SEED, STATE_ARRAYS
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.faults import EpisodeFault, decode_faults, encode_faults
from dynlearn.errors import CorruptData
from dynlearn.spaces import ActionSpace, ObservationSpace

DIGEST_BYTES = 32
_FAULTS = b"faults"


class Shard(NamedTuple):
    """What a shard's file holds.

    Attributes:
        table: the episodes, as views of the file's bytes.
        digests: kept of each, [K].
        faults: that befell them.
    """

    table: EpisodeTable
    digests: pa.Array
    faults: tuple[EpisodeFault, ...]


def shard_schema(observation_space: ObservationSpace, action_space: ActionSpace) -> pa.Schema:
    """Return the columns of a shard of episodes in these spaces."""

    def rows(dtype: str, columns: int | None) -> pa.DataType:
        number = pa.from_numpy_dtype(np.dtype(dtype))
        return pa.large_list(number if columns is None else pa.list_(number, columns))

    observation, goal = observation_space.observation, observation_space.goal
    types = {"observations": rows(observation.dtype, observation.size)}
    if goal is not None:
        types["achieved_goals"] = types["desired_goals"] = rows(goal.dtype, goal.size)
    types["actions"] = (
        rows(action_space.dtype, action_space.size)
        if action_space.kind == "box"
        else rows("int64", None)
    )
    types |= {"rewards": rows("float64", None)}
    types |= {name: rows("bool", None) for name in ("terminated", "truncated")}
    return pa.schema(
        [
            ("index", pa.int64()),
            ("seed", pa.int64()),
            ("digest", pa.binary(DIGEST_BYTES)),
            *types.items(),
        ]
    )


def encode_shard(
    table: EpisodeTable,
    digests: list[bytes],
    schema: pa.Schema,
    faults: Sequence[EpisodeFault] = (),
) -> pa.Buffer:
    """Return the bytes of an Arrow file; equal content gives equal bytes.

    Raises:
        CorruptData: the episodes have other columns or dtypes than the schema.
    """
    columns: dict[str, pa.Array] = {
        "index": pa.array(table.indices),
        "seed": pa.array(table.seeds, mask=table.seeds == NO_SEED),
        "digest": pa.array(digests, type=pa.binary(DIGEST_BYTES)),
    }
    for name in ARRAYS:
        values = getattr(table, name)
        if values is not None:
            lengths = table.lengths + (name in STATE_ARRAYS)
            columns[name] = _lists(values, lengths)
    found = pa.schema([(name, column.type) for name, column in columns.items()])
    if {field.name: field.type for field in found} != {f.name: f.type for f in schema}:
        raise CorruptData(
            f"expected episodes of {_describe(schema)} as the dataset's spaces say, "
            f"got {_describe(found)}"
        )
    if faults:
        schema = schema.with_metadata({_FAULTS: encode_faults(faults)})
    batch = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decode_shard(content: pa.Buffer, schema: pa.Schema) -> Shard:
    """Return what an Arrow file holds.

    Raises:
        CorruptData: it is no such file, or its episodes are not whole and finite.
    """
    try:
        reader = pa.ipc.open_file(content)
        if reader.num_record_batches != 1 or not reader.schema.equals(schema):
            raise CorruptData(
                f"expected one batch of {_describe(schema)}, got {reader.num_record_batches} "
                f"of {_describe(reader.schema)}"
            )
        batch = reader.get_batch(0)
        batch.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise CorruptData(f"expected an Arrow file, got {_first_line(error)}") from error
    arrays: dict[str, Any] = dict.fromkeys(ARRAYS)
    counts = {}
    for name in schema.names[3:]:
        arrays[name], counts[name] = _flat(batch.column(name))
    lengths = counts["rewards"]
    for name, count in counts.items():
        if not np.array_equal(count, lengths + (name in STATE_ARRAYS)):
            raise CorruptData(f"expected as many {name} as rewards in every episode, got others")
    if batch.column("index").null_count or batch.column("digest").null_count:
        raise CorruptData("expected an index and a digest for every episode, got nulls")
    seeds = batch.column("seed").fill_null(NO_SEED).to_numpy(zero_copy_only=False)
    table = EpisodeTable(batch.column("index").to_numpy(), seeds, lengths, **arrays)
    table.check()
    faults = (reader.schema.metadata or {}).get(_FAULTS)
    return Shard(table, batch.column("digest"), decode_faults(faults) if faults else ())


def _lists(values: NDArray[Any], lengths: NDArray[np.int64]) -> pa.LargeListArray:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    if values.ndim == 2:
        flat = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), flat)


def _flat(column: pa.LargeListArray) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return a column's numbers end to end, [rows] or [rows, columns], and the rows of each list.

    Raises:
        CorruptData: numbers are missing or lie outside every list.
    """
    offsets = column.offsets.to_numpy()
    items = column.values
    numbers = items.values if pa.types.is_fixed_size_list(items.type) else items
    if (
        column.null_count
        or items.null_count
        or numbers.null_count
        or offsets[0] != 0
        or offsets[-1] != len(items)
    ):
        raise CorruptData("expected lists that cover all numbers, got gaps")
    values: NDArray[Any] = numbers.to_numpy(zero_copy_only=False)
    if numbers is not items:
        values = values.reshape(len(items), -1)
    return values, np.diff(offsets)


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)[:1000]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
