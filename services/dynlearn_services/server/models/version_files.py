"""What a version's files are: whether they are as they were, and whether damage would be seen."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dynlearn.errors import CorruptData
from dynlearn.storage.checksums import CHECKSUMS_FILE
from dynlearn.storage.files import MAX_JSON_BYTES, read_bytes

# Name, size, time and inode of each file: what changes if a file does.
Stamp = tuple[tuple[str, int, int, int], ...]

# What programs read.
_SUFFIXES = (".json", ".safetensors")


def stamp_of(folder: Path) -> Stamp:
    """Return what changes if a file of a version does; empty where the folder is gone."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    return tuple(each for path in files if (each := _stamp(path)) is not None)


def are_checked(folder: Path) -> bool:
    """Whether a version has checksums, so that damage to its files is seen."""
    return (folder / CHECKSUMS_FILE).is_file()


@dataclass
class VersionFiles:
    """What a version's files were when it was read.

    Attributes:
        stamp: of the checksums, or of all files where there are none.
        content: of the checksums, hashed; empty where there are none.
    """

    stamp: Stamp
    content: bytes

    @classmethod
    def look(cls, folder: Path) -> Self:
        """Return what they are now."""
        return cls(*_identity(folder))

    def have_become_others(self, folder: Path) -> bool:
        """Whether there are others now; not where there are none, or the same once more."""
        checksums = _stamp(folder / CHECKSUMS_FILE)
        if self.content and checksums is not None and self.stamp == (checksums,):
            return False
        stamp, content = _identity(folder)
        if not stamp or stamp == self.stamp:
            return False
        if content and content == self.content:
            self.stamp = stamp
            return False
        return True


def _identity(folder: Path) -> tuple[Stamp, bytes]:
    file = folder / CHECKSUMS_FILE
    stamp = _stamp(file)
    if stamp is None:
        return stamp_of(folder), b""
    try:
        return (stamp,), hashlib.sha256(read_bytes(file, MAX_JSON_BYTES)).digest()
    except FileNotFoundError:
        return (), b""
    except CorruptData:
        # Whoever reads the version says so.
        return (stamp,), b""


def _stamp(file: Path) -> tuple[str, int, int, int] | None:
    try:
        status = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return str(file), status.st_size, status.st_mtime_ns, status.st_ino
