"""The folder of a Ray cluster started here: nobody else's to look into, and gone in the end."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dynlearn.errors import Busy, InvalidInput
from dynlearn.storage.locks import LOCK_FILE, one_writer

_PREFIX = "dynlearn-ray-"
# Ray's sockets lie some 60 bytes deeper, and the path of a socket has 107 bytes.
_LONGEST = 40
_SECONDS_TO_LOCK = 60.0
"""After which a folder without a lock is nobody's."""


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Give a new folder that only this user may enter, and remove it afterwards.

    Those whose process was killed are removed too.

    Raises:
        InvalidInput: there is no place for one.
    """
    place = tempfile.gettempdir()
    if len(place) > _LONGEST:
        place = "/tmp"
    try:
        _remove_abandoned(place)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    except OSError as error:
        raise InvalidInput(
            f"expected room for the files of Ray in {place}, got {error.strerror}; "
            "name another place by TMPDIR"
        ) from error
    try:
        with one_writer(folder / LOCK_FILE, "the files of Ray"):
            yield folder
    finally:
        _remove(folder)
        # Of a process that was killed, those that it had begun may have lived on a while.
        _remove_abandoned(place)


def _remove_abandoned(place: str) -> None:
    for folder in Path(place).glob(f"{_PREFIX}*"):
        # It may be in use, another's, or gone by now.
        with suppress(Busy, InvalidInput, OSError, KeyError):
            lock = folder / LOCK_FILE
            is_new = time.time() - folder.stat().st_mtime < _SECONDS_TO_LOCK
            if folder.owner() != Path.home().owner() or (is_new and not lock.exists()):
                continue
            with one_writer(lock, "the files of Ray"):
                pass
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder that is nobody's, or leave it as one that is to be removed."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        with suppress(OSError):
            (folder / LOCK_FILE).touch()
