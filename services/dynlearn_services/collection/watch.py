"""Where workers are: each notes it in Ray's store of small values, and the driver looks there.

A worker that is in the middle of a step cannot be asked. A thread of its own notes where it is; one
that is to be played carefully notes it itself before every step, so that the last word of a process
that dies is true.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

_NAMESPACE = "dynlearn"
_BEATS_EVERY = 5.0


class Place(NamedTuple):
    """Where a worker is.

    Attributes:
        episode: which it plays; None where it plays many side by side.
        attempt: how many seeds of it were given up before.
        step: how many steps are done; -1 while it is reset.
    """

    episode: int | None
    attempt: int
    step: int


class Sighting(NamedTuple):
    """What a worker has noted.

    Attributes:
        beat: a number that is another each time.
        place: where it is; None where it plays nothing.
        seconds: for how long it has been there.
    """

    beat: int
    place: Place | None
    seconds: float


def period_of(step_timeout: float | None) -> float:
    """Return after how many seconds a worker notes where it is, again and again."""
    return _BEATS_EVERY if step_timeout is None else min(1.0, step_timeout / 4)


def last_sighting(key: str) -> Sighting | None:
    """Return what a worker has noted last, if anything."""
    from ray.experimental.internal_kv import _internal_kv_get

    content = _internal_kv_get(key, namespace=_NAMESPACE)
    if content is None:
        return None
    beat, place, seconds = json.loads(content)
    return Sighting(beat, place and Place(*place), seconds)


def forget(key: str) -> None:
    """Remove what a worker has noted."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(key, namespace=_NAMESPACE)


class Watch:
    """Notes where a worker is, for as long as its process lives."""

    def __init__(self, key: str, period: float, look: Callable[[], Place | None]):
        """Note it for the first time, and go on in a thread.

        Args:
            key: of this worker.
            period: seconds between notes.
            look: returns where it is.
        """
        self._key, self._period, self._look = key, period, look
        self._beat = 0
        self._place: Place | None = None
        self._since = time.monotonic()
        self._writing = threading.Lock()
        # Before anything that may let no thread run.
        self.note()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def note(self) -> None:
        """Note where the worker is, at once."""
        from ray.experimental.internal_kv import _internal_kv_put

        with self._writing:
            place, now = self._look(), time.monotonic()
            if place != self._place:
                self._place, self._since = place, now
            self._beat += 1
            content = json.dumps((self._beat, place, now - self._since))
            _internal_kv_put(self._key, content, namespace=_NAMESPACE)

    def _run(self) -> None:
        while True:
            time.sleep(self._period)
            self.note()
