"""The Open Inference Protocol v2 as bytes, with the binary tensor extension, for both ends.

A message is one JSON object, then the binary tensors in the order in which the JSON lists them:
little-endian, row-major, unpadded. The HTTP header `HEADER_LENGTH` counts the JSON's bytes; without
it the whole body is JSON. Decoded binary tensors are read-only views of the body.

Sources: see `dynlearn.protocol.documents`.
"""

import math
import reprlib
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import to_json

from dynlearn.errors import InvalidInput, NumericalFailure
from dynlearn.protocol.documents import (
    Datatype,
    Document,
    RequestDocument,
    RequestParameters,
    ResponseDocument,
    TensorDocument,
)

Array = NDArray[Any]

HEADER_LENGTH = "Inference-Header-Content-Length"

_DTYPES: dict[Datatype, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}
_DATATYPES = {dtype: datatype for datatype, dtype in _DTYPES.items()}


class Message(NamedTuple):
    """A body with the number of its JSON bytes; None where all of it is JSON."""

    body: bytes
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


def decode_request(body: bytes, header_length: str | None) -> InferRequest:
    """Read a request from an HTTP body and the value of its `HEADER_LENGTH` header.

    Raises:
        InvalidInput: the body is not a request; the message names the field.
    """
    document, blobs = _open(body, header_length, RequestDocument)
    parameters = document.parameters or RequestParameters()
    outputs = {}
    for output in document.outputs or ():
        binary = output.parameters.binary_data if output.parameters else None
        outputs[output.name] = parameters.binary_data_output if binary is None else binary
    if len(outputs) < len(document.outputs or ()):
        raise InvalidInput("outputs: expected distinct names, got one twice")
    return InferRequest(
        _decode_tensors(document.inputs, blobs),
        outputs,
        parameters.binary_data_output,
        document.id,
        parameters.model_extra or {},
    )


def decode_response(body: bytes, header_length: str | None) -> InferResponse:
    """Read an answer from an HTTP body and the value of its `HEADER_LENGTH` header.

    Raises:
        InvalidInput: the body is not an answer; the message names the field.
    """
    document, blobs = _open(body, header_length, ResponseDocument)
    outputs = _decode_tensors(document.outputs, blobs)
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
    tensors, blobs = _encode_tensors(inputs, binary=inputs)
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
    tensors, blobs = _encode_tensors(response.outputs, binary)
    document = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        **({} if response.id is None else {"id": response.id}),
        "outputs": tensors,
    }
    return _join(dumps(document), blobs)


class _Blobs:
    """The bytes after the JSON, taken tensor by tensor."""

    def __init__(self, body: bytes, offset: int):
        self._body = body
        self._offset = offset

    def take(self, name: str, dtype: np.dtype[Any], count: int) -> Array:
        left = len(self._body) - self._offset
        if count * dtype.itemsize > left:
            raise InvalidInput(
                f"{name}: expected {count * dtype.itemsize} binary bytes, got {left}"
            )
        values = np.frombuffer(self._body, dtype, count, self._offset)
        self._offset += count * dtype.itemsize
        return values

    def finish(self) -> None:
        left = len(self._body) - self._offset
        if left:
            raise InvalidInput(
                f"body: expected nothing after the last binary tensor, got {left} bytes more"
            )


_Kind = TypeVar("_Kind", bound=Document)


def _open(body: bytes, header_length: str | None, kind: type[_Kind]) -> tuple[_Kind, _Blobs]:
    """Parse the JSON of a body; the tensors after it are still to be taken."""
    length = len(body) if header_length is None else _parse_length(header_length, len(body))
    try:
        document = kind.model_validate_json(body[:length])
    except ValidationError as error:
        raise InvalidInput(describe_fault(error)) from error
    return document, _Blobs(body, length)


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


def describe_fault(error: ValidationError) -> str:
    """Return where in a document the first fault is, what was expected and what came."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or "body"
    given = first["input"]
    if first["type"] != "json_invalid" and isinstance(given, str | int | float | None):
        return f"{where}: {first['msg']}, got {reprlib.repr(given)}"
    return f"{where}: {first['msg']}"


def _decode_tensors(documents: Iterable[TensorDocument], blobs: _Blobs) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for document in documents:
        if document.name in tensors:
            raise InvalidInput(f"{document.name}: expected one tensor of this name, got two")
        tensors[document.name] = _decode_tensor(document, blobs)
    blobs.finish()
    return tensors


def _decode_tensor(document: TensorDocument, blobs: _Blobs) -> Array:
    name, dtype = document.name, _DTYPES[document.datatype]
    count = math.prod(document.shape)
    size = document.parameters.binary_data_size if document.parameters else None
    if (size is None) == (document.data is None):
        raise InvalidInput(f"{name}: expected either data or parameters.binary_data_size")
    if document.data is not None:
        values = _parse_numbers(document, dtype, count)
    elif size != count * dtype.itemsize:
        raise InvalidInput(
            f"{name}: expected binary_data_size {count * dtype.itemsize} for shape "
            f"{document.shape} of {document.datatype}, got {size}"
        )
    else:
        values = blobs.take(name, dtype, count)
    if dtype.kind == "f" and not np.isfinite(values).all():
        raise InvalidInput(f"{name}: expected finite values, got NaN or infinity")
    return values.reshape(document.shape)


def _parse_numbers(document: TensorDocument, dtype: np.dtype[Any], count: int) -> Array:
    flat = _flatten(document)
    if len(flat) != count:
        raise InvalidInput(
            f"{document.name}: expected {count} numbers for shape {document.shape}, got {len(flat)}"
        )
    try:
        # array, unlike numpy, refuses strings and null, and integers that do not fit.
        return np.frombuffer(array(dtype.char, flat), dtype)
    except (TypeError, OverflowError) as error:
        raise InvalidInput(
            f"{document.name}: expected numbers of datatype {document.datatype} ({error})"
        ) from error


def _flatten(document: TensorDocument) -> list[Any]:
    """Return data that is flat already, or nested exactly as its shape, as a flat list."""
    flat = document.data or []
    if not (flat and isinstance(flat[0], list)):
        return flat
    for length in document.shape[1:]:
        if not all(isinstance(row, list) and len(row) == length for row in flat):
            raise InvalidInput(
                f"{document.name}: expected data flat or nested as its shape {document.shape}"
            )
        flat = list(chain.from_iterable(flat))
    return flat


def _encode_tensors(
    tensors: Mapping[str, Array], binary: Collection[str]
) -> tuple[list[dict[str, Any]], list[Array]]:
    documents, blobs = [], []
    for name, given in tensors.items():
        values = given.astype(given.dtype.newbyteorder("<"), order="C", copy=False)
        if values.dtype not in _DATATYPES:
            raise InvalidInput(
                f"{name}: expected an array of {', '.join(map(str, _DATATYPES))}, got {given.dtype}"
            )
        document: dict[str, Any] = {
            "name": name,
            "datatype": _DATATYPES[values.dtype],
            "shape": list(values.shape),
        }
        if name in binary:
            document["parameters"] = {"binary_data_size": values.nbytes}
            blobs.append(values)
        else:
            document["data"] = values.ravel()
        documents.append(document)
    return documents, blobs


def _join(header: bytes, blobs: Sequence[Array]) -> Message:
    if not blobs:
        return Message(header, None)
    return Message(b"".join((header, *(values.data for values in blobs))), len(header))
