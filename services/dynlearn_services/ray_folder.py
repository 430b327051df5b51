"""The folder of a Ray cluster started here: nobody else's to look into, and gone in the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dynlearn.errors import Busy, InvalidInput
from dynlearn.storage.locks import LOCK_FILE, one_writer

_PREFIX = "dynlearn-ray-"
# Ray's sockets lie some 60 bytes deeper, and the path of a socket has 107 bytes.
_LONGEST = 40


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
        for left in Path(place).glob(f"{_PREFIX}*"):
            _remove_if_abandoned(left)
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
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_abandoned(folder: Path) -> None:
    try:
        if folder.owner() != Path.home().owner() or not (folder / LOCK_FILE).exists():
            return
        with one_writer(folder / LOCK_FILE, "the files of Ray"):
            shutil.rmtree(folder, ignore_errors=True)
    except (Busy, InvalidInput, OSError, KeyError):
        # In use, or another's.
        return
