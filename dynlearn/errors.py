"""The exceptions that dynlearn raises, and what each means to a shell and to an HTTP caller.

DynlearnError
├── InvalidInput          the caller asked for something that cannot be (exit 2, HTTP 400)
│   ├── NotFound          no such environment, dataset, model or version (exit 2, HTTP 404)
│   ├── CorruptData       a file or an array is not what it must be (exit 2, HTTP 400)
│   ├── TooLarge          a size above its limit (exit 2, HTTP 413)
│   ├── Busy              something that another is writing (exit 2, HTTP 409)
│   ├── Unauthorized      no token, or one that is not known (exit 2, HTTP 401)
│   └── Forbidden         a token whose role does not allow it (exit 2, HTTP 403)
├── Unavailable           a service cannot answer now (exit 1, HTTP 503)
│   └── DeadlineExceeded  the time that the caller gave has passed (exit 1, HTTP 504)
└── NumericalFailure      a computation gave NaN or infinity (exit 1, HTTP 500)

Every message says what was expected, what came, and how to mend it, in one line.
"""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class DynlearnError(Exception):
    """The root of every exception that dynlearn raises on purpose."""

    exit_code = 1
    http_status = 500


class InvalidInput(DynlearnError):
    """The caller's input cannot be served as it is."""

    exit_code = 2
    http_status = 400


class NotFound(InvalidInput):
    """A name that nothing answers to."""

    http_status = 404


class CorruptData(InvalidInput):
    """A file or an array that is empty, half-written, altered or not finite."""


class TooLarge(InvalidInput):
    """A size above its limit."""

    http_status = 413


class Busy(InvalidInput):
    """Something that another process is writing."""

    http_status = 409


class Unauthorized(InvalidInput):
    """A call without a token that is known."""

    http_status = 401


class Forbidden(InvalidInput):
    """A call that the token's role does not allow."""

    http_status = 403


class Unavailable(DynlearnError):
    """A service that cannot answer at present."""

    http_status = 503


class DeadlineExceeded(Unavailable):
    """The time that the caller gave has passed; trying again would take as long."""

    http_status = 504


class NumericalFailure(DynlearnError):
    """A computation that left the finite numbers."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a phrase that names the known words closest to ``name``, for the end of a message."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(known)}" if known else "there are none yet"


def describe_fault(error: "ValidationError", whole: str) -> str:
    """Return where the first fault that pydantic found is, what was expected and what came.

    Args:
        error: of a model that refused its input.
        whole: what the input is called where the fault is in none of its parts.
    """
    first: dict[str, Any] = dict(error.errors(include_url=False)[0])
    where = ".".join(map(str, first["loc"])) or whole
    expected = first["msg"].removeprefix("Value error, ")
    if expected.startswith("Input should be "):
        expected = f"expected {expected.removeprefix('Input should be ')}"
    given = first["input"]
    is_plain = isinstance(given, str | int | float | None)
    if is_plain and first["type"] not in ("json_invalid", "value_error"):
        expected += f", got {reprlib.repr(given)}"
    return f"{where}: {expected}"
