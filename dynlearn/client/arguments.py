"""What callers give, as what is sent."""

from typing import Any, Literal

import numpy as np

from dynlearn.errors import InvalidInput
from dynlearn.numbers import holds_flags
from dynlearn.protocol.tensors import Array
from dynlearn.spaces import DiscreteSpace


def as_float(name: str, values: Any, datatype: Literal["FP32", "FP64"] = "FP32") -> Array:
    """Return numbers in float32, or in float64 where that is asked for.

    Raises:
        InvalidInput: they are no numbers, or rows differ in length.
    """
    try:
        given = np.asarray(_on_the_host(values))
        if given.dtype.kind not in "iuf" or holds_flags(values):
            raise TypeError(f"got {given.dtype}")
        # What overflows becomes infinite, and the server refuses it by name.
        with np.errstate(over="ignore"):
            return given.astype(np.float64 if datatype == "FP64" else np.float32, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"{name}: expected rows of numbers ({error})") from error


def as_integers(name: str, values: Any) -> Array:
    """Return integers, one a row at least.

    Raises:
        InvalidInput: there is only one, or they are no integers.
    """
    has_flags = holds_flags(values)
    values = np.asarray(_on_the_host(values))
    if not values.ndim:
        raise InvalidInput(f"{name}: expected integers, one a row, got the number {values}")
    if (values.dtype.kind not in "iu" and values.size) or has_flags:
        raise InvalidInput(f"{name}: expected integers, got an array of {values.dtype}")
    integers: Array = values.astype(np.int64)
    return integers


def as_choices(name: str, values: Any, space: DiscreteSpace, rank: int) -> Array:
    """Return integers of a discrete space, given as such or one-hot.

    Args:
        name: what they are called.
        values: [...], [..., 1] or one-hot.
        space: of the actions.
        rank: how many dimensions ``...`` are.

    Raises:
        InvalidInput: they are none, or not of the space.
    """
    try:
        return space.choices(_on_the_host(values), rank, name)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"{name}: expected rows of one length ({error})") from error


def _on_the_host(values: Any) -> Any:
    """Return a tensor of torch as one in main memory, and anything else as it is."""
    return values.cpu() if hasattr(values, "cpu") else values
