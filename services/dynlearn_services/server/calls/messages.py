"""Requests read and answers written, within the limits of their sizes."""

import asyncio
import gc
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

import orjson

from dynlearn.errors import TooLarge
from dynlearn.protocol.messages import (
    InferRequest,
    InferResponse,
    Message,
    decode_request,
    encode_response,
)
from dynlearn.protocol.tensors import Array
from dynlearn_services.server.models.loaded_model import LoadedModel

# Below this, another thread costs more than the work.
_INLINE_BYTES = 2**20
_INLINE_JSON_BYTES = 2**14

# Numbers that are written at once, which no other thread of Python's can interrupt.
_NUMBERS_AT_ONCE = 2**15

Result = TypeVar("Result")


async def aside(size: int, work: Callable[[], Result]) -> Result:
    """Do work on so many bytes, away from the event loop if they are many."""
    return work() if size <= _INLINE_BYTES else await asyncio.to_thread(work)


async def decode(
    body: bytes, header_length: str | None, most_json_bytes: int, reader: Executor
) -> InferRequest:
    """Read a request, if it is long with a reader.

    Raises:
        InvalidInput: it is none.
        TooLarge: it holds too much.
    """
    read = partial(decode_request, body, header_length, most_json_bytes)
    if len(body) <= _INLINE_BYTES and _json_bytes(body, header_length) <= _INLINE_JSON_BYTES:
        return read()
    return await asyncio.get_running_loop().run_in_executor(reader, _read, read)


def _json_bytes(body: bytes, header_length: str | None) -> int:
    is_number = header_length is not None and header_length.isdecimal()
    return int(header_length[:20]) if header_length and is_number else len(body)


def _read(read: Callable[[], InferRequest]) -> InferRequest:
    """Read, while Python does not look for garbage: lists of numbers refer to nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return read()
    finally:
        if was_enabled:
            gc.enable()


async def encode(
    model: LoadedModel, outputs: dict[str, Array], binary: Mapping[str, bool], id_: str | None
) -> Message:
    """Write an answer, away from the event loop if it is long."""
    response = InferResponse(model.name, model.version, outputs, id_)
    write: Callable[[], Message] = partial(
        encode_response, response, {name for name in binary if binary[name]}, dumps
    )
    return await aside(sum(values.nbytes for values in outputs.values()), write)


def dumps(document: dict[str, Any]) -> bytes:
    """Write an answer's JSON, long tensors a part at a time."""
    outputs = [
        output | {"data": _dump_numbers(output["data"])} if "data" in output else output
        for output in document["outputs"]
    ]
    return _dumps(document | {"outputs": outputs})


def _dump_numbers(values: Array) -> Any:
    if len(values) <= _NUMBERS_AT_ONCE:
        return values
    parts = range(0, len(values), _NUMBERS_AT_ONCE)
    written = [_dumps(values[first : first + _NUMBERS_AT_ONCE])[1:-1] for first in parts]
    return orjson.Fragment(b"[" + b",".join(written) + b"]")


_dumps = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)


def require_rows(inputs: Mapping[str, Array], most: int) -> None:
    """Check how many rows there are.

    Raises:
        TooLarge: an input has more.
    """
    for name, values in inputs.items():
        if len(values) > most:
            raise TooLarge(f"{name}: expected at most {most} rows, got {len(values)}")


def require_answer(size: int, most: int) -> None:
    """Check how many bytes an answer would be.

    Raises:
        TooLarge: they are more.
    """
    if size > most:
        raise TooLarge(
            f"outputs: expected an answer of at most {most} bytes, got a request for {size}; "
            "ask for fewer rows or outputs at a time"
        )
