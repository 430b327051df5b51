"""Tensors of a message: in its JSON, or as binary after it."""

import math
from array import array
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynlearn.errors import InvalidInput
from dynlearn.numbers import holds_flags
from dynlearn.protocol.documents import Datatype, TensorDocument

Array = NDArray[Any]

DTYPES: dict[Datatype, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}
_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}


class Blobs:
    """The bytes after the JSON, taken tensor by tensor."""

    def __init__(self, body: bytes | bytearray, offset: int):
        self._body = body
        self._offset = offset

    def take(self, name: str, dtype: np.dtype[Any], count: int) -> Array:
        """Return the next numbers, as a view.

        Raises:
            InvalidInput: there are not so many left.
        """
        left = len(self._body) - self._offset
        if count * dtype.itemsize > left:
            raise InvalidInput(
                f"{name}: expected {count * dtype.itemsize} binary bytes, got {left}"
            )
        values = np.frombuffer(self._body, dtype, count, self._offset)
        self._offset += count * dtype.itemsize
        return values

    def finish(self) -> None:
        """Check that all bytes have been taken.

        Raises:
            InvalidInput: some have not.
        """
        left = len(self._body) - self._offset
        if left:
            raise InvalidInput(
                f"body: expected nothing after the last binary tensor, got {left} bytes more"
            )


def decode_tensors(documents: Iterable[TensorDocument], blobs: Blobs) -> dict[str, Array]:
    """Read the tensors that documents describe, by name.

    Raises:
        InvalidInput: a shape, a size or a number is wrong, or a name comes twice.
    """
    tensors: dict[str, Array] = {}
    for document in documents:
        if document.name in tensors:
            raise InvalidInput(f"{document.name}: expected one tensor of this name, got two")
        tensors[document.name] = _decode_tensor(document, blobs)
    blobs.finish()
    return tensors


def _decode_tensor(document: TensorDocument, blobs: Blobs) -> Array:
    name, dtype = document.name, DTYPES[document.datatype]
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
        values = np.frombuffer(array(dtype.char, flat), dtype)
    except (TypeError, OverflowError) as error:
        raise InvalidInput(
            f"{document.name}: expected numbers of datatype {document.datatype} ({error})"
        ) from error
    # It takes true and false for one and zero.
    if ((values == 0) | (values == 1)).any() and holds_flags(flat):
        raise InvalidInput(
            f"{document.name}: expected numbers of datatype {document.datatype}, got true or false"
        )
    return values


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


def encode_tensors(
    tensors: Mapping[str, Array], binary: Collection[str]
) -> tuple[list[dict[str, Any]], list[Array]]:
    """Return the documents of tensors, and the arrays that follow the JSON, in order.

    Args:
        tensors: by name.
        binary: the names of those that follow the JSON; the others are in it.

    Raises:
        InvalidInput: an array has a dtype that does not travel.
    """
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
