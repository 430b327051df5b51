"""Standard output is for results: what environments and other packages print goes aside."""

import ctypes
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress

_OUTPUT, _ERRORS = 1, 2


@contextmanager
def clean_standard_output() -> Iterator[None]:
    """Send to standard error what is printed meanwhile, by Python, by C or by other processes."""
    _flush_all()
    kept = None
    with suppress(OSError):
        # It may be closed; so may standard error, whose place is not to be taken.
        kept = fcntl.fcntl(_OUTPUT, fcntl.F_DUPFD_CLOEXEC, _ERRORS + 1)
    _send_aside()
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            _flush_all()
            os.dup2(kept, _OUTPUT)
            os.close(kept)


def close_standard_output() -> None:
    """End what is printed as a result; what others print while Python ends goes aside too."""
    _flush_all()
    _send_aside()


def _send_aside() -> None:
    try:
        os.dup2(_ERRORS, _OUTPUT)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _OUTPUT)


def _flush_all() -> None:
    for stream in (sys.stdout, sys.__stdout__):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    with suppress(OSError, AttributeError, TypeError):
        # What C has printed lies in its own buffer.
        ctypes.CDLL(None).fflush(None)
