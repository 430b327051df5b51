"""The Open Inference Protocol v2 as bytes, with the binary tensor extension, for both ends.

A message is one JSON object, then the binary tensors in the order in which the JSON lists them:
little-endian, row-major, unpadded. The HTTP header `HEADER_LENGTH` counts the JSON's bytes; without
it the whole body is JSON. Decoded binary tensors are read-only views of the body.

Sources: see `dynlearn.protocol.documents`.
"""

import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import ValidationError
from pydantic_core import to_json

from dynlearn.errors import InvalidInput, NumericalFailure, TooLarge, describe_fault
from dynlearn.protocol.documents import (
    Document,
    RequestDocument,
    RequestParameters,
    ResponseDocument,
)
from dynlearn.protocol.tensors import Array, Blobs, decode_tensors, encode_tensors

HEADER_LENGTH = "Inference-Header-Content-Length"

# Of a request's JSON: rows of nested data, and the names of a few tensors. Each would become an
# object of many times its size before it could be seen to be none of these, and no other thread
# runs meanwhile.
_MOST_LISTS = 2**16
_MOST_OBJECTS = 1_000
_MOST_QUOTES = 10_000
_MOST_COMMAS = 2**18

# What is copied meanwhile keeps others from running for longer than changing threads does.
_LONG_BYTES = 2**20


class Message(NamedTuple):
    """A body with the number of its JSON bytes; None where all of it is JSON."""

    body: bytes | memoryview
    header_length: int | None

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that describe the body."""
        if self.header_length is None:
            return {"Content-Type": "application/json"}
        return {
            "Content-Type": "application/octet-stream",
            HEADER_LENGTH: str(self.header_length),
        }


@dataclass(frozen=True)
class InferRequest:
    """A decoded request.

    Attributes:
        inputs: tensors by name.
        outputs: the names asked for, each with whether it is to travel in binary; empty where the
            caller leaves the choice to the server.
        binary: whether the server's own choice of outputs is to travel in binary.
        id: what the answer must repeat.
        parameters: everything else that the caller said.
    """

    inputs: dict[str, Array]
    outputs: dict[str, bool]
    binary: bool
    id: str | None
    parameters: dict[str, Any]


@dataclass(frozen=True)
class InferResponse:
    """An answer: tensors by name, and the model version that gave them."""

    model_name: str
    model_version: str
    outputs: dict[str, Array]
    id: str | None = None


def decode_request(
    body: bytes, header_length: str | None, most_json_bytes: int | None = None
) -> InferRequest:
    """Read a request from an HTTP body and the value of its `HEADER_LENGTH` header.

    Args:
        body: of the HTTP request.
        header_length: how many of its bytes are JSON, if not all.
        most_json_bytes: of its JSON; numbers take several times as much while they are read.

    Raises:
        InvalidInput: the body is not a request; the message names the field.
        TooLarge: there is more JSON, or more in it, than a request has.
    """
    length = len(body) if header_length is None else _parse_length(header_length, len(body))
    if most_json_bytes is not None and length > most_json_bytes:
        raise TooLarge(
            f"body: expected at most {most_json_bytes} bytes of JSON, got {length}; send tensors "
            "in binary, or fewer rows at a time"
        )
    _require_few_parts(body, length)
    document, blobs = _open(body, header_length, RequestDocument)
    parameters = document.parameters or RequestParameters()
    outputs = {}
    for output in document.outputs or ():
        binary = output.parameters.binary_data if output.parameters else None
        outputs[output.name] = parameters.binary_data_output if binary is None else binary
    if len(outputs) < len(document.outputs or ()):
        raise InvalidInput("outputs: expected distinct names, got one twice")
    return InferRequest(
        decode_tensors(document.inputs, blobs),
        outputs,
        parameters.binary_data_output,
        document.id,
        parameters.model_extra or {},
    )


def decode_response(body: bytes | bytearray, header_length: str | None) -> InferResponse:
    """Read an answer from an HTTP body and the value of its `HEADER_LENGTH` header.

    What is binary in it is a view of the body, which may be written to if that may.

    Raises:
        InvalidInput: the body is not an answer; the message names the field.
    """
    document, blobs = _open(body, header_length, ResponseDocument)
    outputs = decode_tensors(document.outputs, blobs)
    return InferResponse(document.model_name, document.model_version, outputs, document.id)


def encode_request(
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    parameters: Mapping[str, Any] | None = None,
    id: str | None = None,
) -> Message:
    """Write a request whose tensors and answer travel in binary.

    Args:
        inputs: tensors by name.
        outputs: the names asked for; none leaves the choice to the server.
        parameters: what else to say, as plain JSON values.
        id: what the answer must repeat.
    """
    tensors, blobs = encode_tensors(inputs, binary=inputs)
    document: dict[str, Any] = {
        **({} if id is None else {"id": id}),
        "inputs": tensors,
        "outputs": [{"name": name} for name in outputs],
        "parameters": {**(parameters or {}), "binary_data_output": True},
    }
    return _join(to_json(document), blobs)


def encode_response(
    response: InferResponse, binary: Collection[str], dumps: Callable[[Any], bytes]
) -> Message:
    """Write an answer, the outputs named in ``binary`` after the JSON and the others in it.

    Args:
        response: what to write.
        binary: the names of the outputs that travel in binary.
        dumps: writes JSON, numpy arrays included.

    Raises:
        NumericalFailure: an output holds NaN or infinity, which must not leave.
    """
    for name, values in response.outputs.items():
        if not np.isfinite(values).all():
            raise NumericalFailure(
                f"{name}: expected finite values, got NaN or infinity from the model; "
                "check that the inputs are like the data that it was trained on"
            )
    tensors, blobs = encode_tensors(response.outputs, binary)
    document = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        **({} if response.id is None else {"id": response.id}),
        "outputs": tensors,
    }
    return _join_freely(dumps(document), blobs)


_Kind = TypeVar("_Kind", bound=Document)


def _open(
    body: bytes | bytearray, header_length: str | None, kind: type[_Kind]
) -> tuple[_Kind, Blobs]:
    """Parse the JSON of a body; the tensors after it are still to be taken."""
    length = len(body) if header_length is None else _parse_length(header_length, len(body))
    try:
        document = kind.model_validate_json(body[:length])
    except ValidationError as error:
        raise InvalidInput(describe_fault(error, "body")) from error
    return document, Blobs(body, length)


def _require_few_parts(body: bytes, length: int) -> None:
    """Check, before anything is made of it, that a request's JSON is mostly numbers.

    Raises:
        TooLarge: it has other parts by the thousand.
    """
    for sign, most, what in (
        (b"[", _MOST_LISTS, "lists; send rows flat or in binary"),
        (b"{", _MOST_OBJECTS, "objects"),
        (b'"', _MOST_QUOTES, "quotation marks"),
        (b",", _MOST_COMMAS, "numbers; send tensors in binary"),
    ):
        count = body.count(sign, 0, length)
        if count > most:
            raise TooLarge(f"body: expected at most {most} {what}, got {count}")


def _parse_length(header_length: str, limit: int) -> int:
    # Only plain ASCII digits; int() alone would take "+5", "1_0" and other scripts' digits.
    plain = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
    length = int(header_length) if plain else 0
    if not 1 <= length <= limit:
        raise InvalidInput(
            f"{HEADER_LENGTH}: expected a number of JSON bytes from 1 to the body's {limit}, "
            f"got {reprlib.repr(header_length)}"
        )
    return length


def _join(header: bytes, blobs: Sequence[Array]) -> Message:
    if not blobs:
        return Message(header, None)
    return Message(b"".join((header, *(values.data for values in blobs))), len(header))


def _join_freely(header: bytes, blobs: Sequence[Array]) -> Message:
    """Do what `_join` does; other threads of Python's run meanwhile."""
    if sum(values.nbytes for values in blobs) < _LONG_BYTES:
        return _join(header, blobs)
    parts = [np.frombuffer(header, np.uint8), *(values.ravel().view(np.uint8) for values in blobs)]
    return Message(np.concatenate(parts).data, len(header))
