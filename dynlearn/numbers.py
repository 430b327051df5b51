"""Numbers as callers give them: Python takes flags, fractions and texts for whole numbers too."""

import operator
from typing import Any

from dynlearn.errors import InvalidInput


def check_integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number, which may be one of NumPy's, between two bounds.

    Raises:
        InvalidInput: it is none, or beyond a bound.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if (
        number is None
        or (least is not None and number < least)
        or (most is not None and number > most)
    ):
        raise InvalidInput(f"{name}: expected {_between(least, most)}, got {value!r}")
    return number


def holds_flags(values: Any) -> bool:
    """Whether a list, or lists of lists, hold True or False among numbers."""
    if not isinstance(values, list | tuple):
        return isinstance(values, bool)
    kinds = set(map(type, values))
    return bool in kinds or (bool(kinds & {list, tuple}) and any(map(holds_flags, values)))


def _between(least: int | None, most: int | None) -> str:
    if least is None and most is None:
        return "an integer"
    if most is None:
        return f"an integer of at least {least}"
    return f"an integer from {least} to {most}"
