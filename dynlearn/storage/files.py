"""Files written whole: bytes, and JSON as pydantic models; and what their names may be.

Every file is written aside and renamed, so that a reader sees the old one or the new one.
"""

import glob
import io
import json
import os
import re
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dynlearn.errors import CorruptData, InvalidInput, NotFound, describe_fault

ASIDE = ".tmp"
"""How the names of half-written files end."""

_SECONDS_TO_WRITE = 60.0
"""From one write of a file to the next, at most."""

MAX_BYTES = 2**34
"""Of any file, such as the weights of the largest models."""

MAX_JSON_BYTES = 2**26
"""Of a file of JSON."""

_PAGE = 2**16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

Model = TypeVar("Model", bound=BaseModel)
Buffer = Any
"""Bytes, or what else has a buffer."""


def check_name(name: str, kind: str) -> str:
    """Return ``name`` if it can be the name of a folder under the home.

    Raises:
        InvalidInput: it holds anything but letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"expected a {kind} name of letters, digits, '.', '-' and '_', got {name!r}"
        )
    return name


def write_bytes(path: Path, content: Buffer, mode: int = 0o644) -> None:
    """Replace a file, with permissions, in one step that a power cut does not undo.

    What a crash leaves behind begins with a dot and ends with `ASIDE`; the next to write the file
    removes it.
    """
    prefix = f".{path.name.lstrip('.')}."
    _remove_left(path.parent, prefix)
    descriptor, aside = tempfile.mkstemp(ASIDE, prefix, path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, mode)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise
    _flush(path.parent)


def open_plain(path: Path, most: int = MAX_BYTES) -> io.BufferedReader:
    """Open a plain file to read; what is none might never end, and is not opened.

    Raises:
        OSError: it cannot be opened.
        CorruptData: it is no plain file, or has more than so many bytes.
    """
    # Opening a pipe waits for its other end, unless asked not to.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "none"
        raise CorruptData(f"expected a plain file, got {path}, which is {kind}")
    if status.st_size > most:
        os.close(descriptor)
        raise CorruptData(f"expected at most {most} bytes, got {status.st_size} in {path}")
    return io.BufferedReader(io.FileIO(descriptor))


def read_bytes(path: Path, most: int) -> bytes:
    """Return what a plain file holds.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        CorruptData: it is no plain file, or larger.
    """
    with open_plain(path, most) as file:
        # Of what has more than it says, as files of /proc have, no more than this is read.
        room = min(most, max(os.fstat(file.fileno()).st_size, _PAGE))
        content = file.read(room + 1)
    if len(content) > room:
        raise CorruptData(f"expected at most {room} bytes, got more in {path}")
    return content


def write_json(path: Path, content: object) -> None:
    """Write a pydantic model in its own JSON form, or anything else with infinities refused."""
    if isinstance(content, BaseModel):
        text = content.model_dump_json(indent=2)
    else:
        text = json.dumps(content, indent=2, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path, kind: type[Model]) -> Model:
    """Read a JSON file as a pydantic model.

    Raises:
        NotFound: there is no such file.
        CorruptData: it is too large, no plain file, or not what ``kind`` describes.
        OSError: it cannot be read for another reason.
    """
    try:
        return kind.model_validate_json(read_bytes(path, MAX_JSON_BYTES))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"expected a file {path}, got none") from error
    except ValidationError as error:
        raise CorruptData(
            f"expected {kind.__name__} in {path}, got a fault: {describe_fault(error, 'file')}; "
            "restore the file from where it was made"
        ) from error


def _remove_left(folder: Path, prefix: str) -> None:
    """Remove what was being written, so long ago that whoever did must have died."""
    for left in folder.glob(f"{glob.escape(prefix)}*{ASIDE}"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _SECONDS_TO_WRITE:
                left.unlink()


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
