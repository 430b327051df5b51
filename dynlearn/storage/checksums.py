"""What a folder's files were when it was published, so that damage to one is seen."""

import hashlib
from pathlib import Path

from pydantic import RootModel

from dynlearn.errors import CorruptData
from dynlearn.storage.files import open_plain, read_json, write_json

CHECKSUMS_FILE = "checksums.json"

# What programs read; a model card may be edited.
_SUFFIXES = (".json", ".safetensors")


class _Checksums(RootModel[dict[str, str]]):
    pass


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every JSON and safetensors file under a folder into it."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    digests = {path.relative_to(folder).as_posix(): _digest(path) for path in files}
    write_json(folder / CHECKSUMS_FILE, digests)


def verify_checksums(folder: Path) -> None:
    """Check that files are as they were; a folder without checksums is taken as it is.

    Raises:
        CorruptData: a file is gone or altered, or the checksums cannot be read.
    """
    if not (folder / CHECKSUMS_FILE).exists():
        return
    for name, digest in read_json(folder / CHECKSUMS_FILE, _Checksums).root.items():
        path = folder / name
        try:
            found = _digest(path)
        except OSError as error:
            raise CorruptData(
                f"expected a file {path}, as it was published, got none ({error.strerror}); "
                "publish the model anew"
            ) from error
        if found != digest:
            raise CorruptData(
                f"expected {path} as it was published, got an altered file; publish the model anew"
            )


def _digest(path: Path) -> str:
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
