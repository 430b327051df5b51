"""SIGINT and SIGTERM as one event, for work that ends in good order."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Give an event that the first stop signal sets; a second one acts as it did before.

    Outside the main thread, which alone can handle signals, nothing sets it.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(*_: object) -> None:
        restore()
        stop.set()

    for number in _STOP_SIGNALS:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
