"""One writer at a time: a lock beside what is written, that dies with whoever held it.

On a local disk it is the operating system's own lock of a file, which ends with its process. Other
stores have none, so there it is a lease: an object that its holder renews, and that whoever has
watched it stand still for `STALE_AFTER` seconds may take over.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from dynlearn.errors import Busy, CorruptData, InvalidInput, NotFound
from dynlearn.storage.files import read_bytes

if TYPE_CHECKING:
    from dynlearn.storage.folder import Folder

LOCK_FILE = ".lock"
STALE_AFTER = 20.0
"""Seconds without a sign of life, after which a lease may be taken over."""
_RENEW_EVERY = 5.0
_SETTLE = 0.5
"""Seconds in which a rival who saw no lease either has written its own."""
_LOOK_EVERY = 0.5
_MAX_BYTES = 4096


class WriteLock(Protocol):
    """A lock that is held."""

    def require(self) -> None:
        """Check that it is still held, before something is written.

        Raises:
            Busy: another has taken it over.
        """

    def release(self) -> None:
        """Give it up, and remove what marks it; harmless if done already."""


class NoLock:
    """For what nobody writes to any more."""

    def require(self) -> None:
        """Nothing can be lost."""

    def release(self) -> None:
        """Nothing is held."""


class _Holder(BaseModel):
    """Who holds a lock; ``renewed`` counts the signs of life of a lease."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    process: int
    host: str
    since: str
    renewed: int = 0

    @classmethod
    def this_process(cls) -> _Holder:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(
            id=secrets.token_hex(8), process=os.getpid(), host=socket.gethostname(), since=since
        )

    def is_dead(self) -> bool:
        """Whether it was a process of this machine that is no more."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def describe(self) -> str:
        return f"process {self.process} on {self.host} has been at it since {self.since}"


def lock_folder(folder: Folder, what: str) -> WriteLock:
    """Become the one writer of a folder, which must exist.

    Args:
        folder: local, or on a store.
        what: it is, for the message, such as "the dataset slide".

    Raises:
        Busy: somebody writes to it.
        InvalidInput: it cannot be written to.
    """
    local = folder.local
    return _Lease(folder, what) if local is None else _LockedFile(local / LOCK_FILE, what, 0)


@contextmanager
def one_writer(file: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of something on the local disk while the block runs.

    Args:
        file: the lock itself, which is removed afterwards; its folder is made if need be.
        what: it guards, for the message.
        wait: for how many seconds, if somebody has it.

    Raises:
        Busy: somebody has had it all that time.
        InvalidInput: the file cannot be written.
    """
    lock = _LockedFile(file, what, wait)
    try:
        yield
    finally:
        lock.release()


class _LockedFile:
    def __init__(self, file: Path, what: str, wait: float):
        self._file = file
        # A thread other than the one that took it may give it back; another's is never shared.
        self._lock = FileLock(file, timeout=wait, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise _busy(what, _read(file)) from error
        except OSError as error:
            raise InvalidInput(
                f"expected a folder that can be written to, got {file.parent} ({error.strerror})"
            ) from error
        # If it cannot be written, only the message to others is lost.
        with suppress(OSError):
            file.write_text(_Holder.this_process().model_dump_json())

    def require(self) -> None:
        pass

    def release(self) -> None:
        if self._lock.is_locked:
            # Before it is free, so that the file of the next holder is never removed; who has
            # opened this one already sees that it has no name any more, and begins anew.
            with suppress(OSError):
                self._file.unlink()
            self._lock.release()


class _Lease:
    def __init__(self, folder: Folder, what: str):
        self._folder = folder
        self._what = what
        self._mine = _Holder.this_process()
        self._released = threading.Event()
        self._writing = threading.Lock()
        self._lost: _Holder | None = None
        self._wait_for_silence()
        self._write()
        time.sleep(_SETTLE)
        if (holder := self._read()) is None or holder.id != self._mine.id:
            raise _busy(what, holder)
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def require(self) -> None:
        with self._writing:
            self._look()
        if self._lost:
            raise _busy(self._what, self._lost)

    def release(self) -> None:
        if self._released.is_set():
            return
        self._released.set()
        with self._writing, suppress(InvalidInput):
            self._look()
            if not self._lost:
                self._folder.remove([LOCK_FILE])

    def _wait_for_silence(self) -> None:
        seen, since = self._read(), time.monotonic()
        while seen is not None and not seen.is_dead():
            if time.monotonic() - since > STALE_AFTER:
                return
            time.sleep(_LOOK_EVERY)
            now = self._read()
            if now is not None and now != seen:
                raise _busy(self._what, now)
            seen = now

    def _renew(self) -> None:
        while not self._released.wait(_RENEW_EVERY):
            # A store that does not answer for a while costs a renewal, not the run.
            with self._writing, suppress(InvalidInput):
                self._look()
                if self._lost or self._released.is_set():
                    return
                self._mine = self._mine.model_copy(update={"renewed": self._mine.renewed + 1})
                self._write()

    def _look(self) -> None:
        holder = self._read()
        if holder is not None and holder.id != self._mine.id:
            self._lost = holder

    def _read(self) -> _Holder | None:
        try:
            return _Holder.model_validate_json(
                self._folder.read(LOCK_FILE, _MAX_BYTES).to_pybytes()
            )
        except (NotFound, CorruptData, ValidationError):
            return None

    def _write(self) -> None:
        self._folder.write(LOCK_FILE, self._mine.model_dump_json().encode())


def _read(file: Path) -> _Holder | None:
    try:
        return _Holder.model_validate_json(read_bytes(file, _MAX_BYTES))
    except (OSError, CorruptData, ValidationError):
        return None


def _busy(what: str, holder: _Holder | None) -> Busy:
    who = holder.describe() if holder else "another process is at it"
    return Busy(
        f"expected nobody else to write to {what}, but {who}; wait until it has ended, or end it"
    )
