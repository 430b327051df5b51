"""Freed memory, which C libraries keep for later; glibc can be asked to hand it back."""

import ctypes
from functools import cache


def hand_back() -> None:
    """Give freed memory back to the system, where the C library can; takes some milliseconds.

    Models come and go between requests of other sizes, and the gaps that they leave in the heaps
    of several threads are else never whole enough to be given up.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> "ctypes._NamedFuncPointer | None":
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        # Another C library: musl, macOS, Windows.
        return None
