"""A folder of files, on the local disk or behind any pyarrow filesystem such as ``s3://``.

Files are written aside and renamed, so that a reader sees a whole file or none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from dynlearn.errors import CorruptData, InvalidInput, NotFound, TooLarge
from dynlearn.storage.files import ASIDE, write_bytes
from dynlearn.storage.uri import without_secrets


@dataclass(frozen=True)
class Folder:
    """A folder that need not exist yet.

    Attributes:
        filesystem: where it is.
        path: its path there.
        shown: its name in messages, free of passwords.
    """

    filesystem: fs.FileSystem
    path: str
    shown: str

    @property
    def parent(self) -> Folder:
        """The folder above."""
        return Folder(self.filesystem, self.path.rpartition("/")[0], self.shown.rpartition("/")[0])

    @property
    def local(self) -> Path | None:
        """Its path, if it is on the local disk."""
        return Path(self.path) if isinstance(self.filesystem, fs.LocalFileSystem) else None

    def create(self, folder: str) -> None:
        """Create a folder inside this one, and those above.

        Raises:
            InvalidInput: it cannot be created.
        """
        with self._expecting("a folder that can be written to"):
            self.filesystem.create_dir(self._at(folder), recursive=True)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of each file in a folder inside; none if there is no such folder."""
        return {info.base_name: info.size for info in self._list(folder) if info.is_file}

    def folders_with(self, file: str) -> list[str]:
        """Return the names of the folders inside that hold ``file``."""
        names = sorted(
            info.base_name for info in self._list("") if info.type == fs.FileType.Directory
        )
        with self._expecting("a folder that can be read"):
            infos = self.filesystem.get_file_info([self._at(f"{name}/{file}") for name in names])
        return [name for name, info in zip(names, infos, strict=True) if info.is_file]

    def read(self, file: str, limit: int | None = None) -> pa.Buffer:
        """Return a file's content; a local one is mapped into memory, not copied.

        Raises:
            NotFound: there is no such file.
            CorruptData: it is empty.
            TooLarge: it is larger than ``limit`` bytes.
            InvalidInput: it cannot be read.
        """
        path = self._at(file)
        with self._expecting("a file that can be read"):
            info = self.filesystem.get_file_info(path)
            if not info.is_file:
                raise NotFound(f"expected the file {file} in {self.shown}, got none")
            if info.size == 0:
                raise CorruptData(f"expected content in {file} of {self.shown}, got an empty file")
            if limit is not None and info.size > limit:
                raise TooLarge(
                    f"expected at most {limit} bytes in {file} of {self.shown}, got {info.size}"
                )
            if self.local:
                return pa.memory_map(path).read_buffer()
            with self.filesystem.open_input_file(path) as source:
                return source.read_buffer()

    def write(self, file: str, content: pa.Buffer | bytes) -> None:
        """Write a whole file in one step, in place of any that is there.

        Raises:
            InvalidInput: it cannot be written.
        """
        folder, _, name = self._at(file).rpartition("/")
        with self._expecting("a folder that can be written to"):
            if self.local:
                write_bytes(Path(folder, name), content)
                return
            aside = f"{folder}/.{name.lstrip('.')}{ASIDE}"
            with self.filesystem.open_output_stream(aside) as sink:
                sink.write(content)
            self.filesystem.move(aside, f"{folder}/{name}")

    def remove(self, files: list[str]) -> None:
        """Remove files; those that are gone already are as they should be.

        Raises:
            InvalidInput: one cannot be removed.
        """
        with self._expecting("a folder that can be written to"):
            for file in files:
                with suppress(FileNotFoundError):
                    self.filesystem.delete_file(self._at(file))

    def remove_folder(self, folder: str) -> None:
        """Remove a folder inside with all that is in it.

        Raises:
            InvalidInput: it cannot be removed.
        """
        with self._expecting("a folder that can be written to"):
            self.filesystem.delete_dir(self._at(folder))

    def remove_if_empty(self) -> None:
        """Remove this folder if nothing is in it.

        Raises:
            InvalidInput: it cannot be removed.
        """
        if not self._list(""):
            self.remove_folder("")

    def _at(self, file: str) -> str:
        return f"{self.path}/{file}" if file else self.path

    def _list(self, folder: str) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self._at(folder), allow_not_found=True)
        with self._expecting("a folder that can be read"):
            infos: list[fs.FileInfo] = self.filesystem.get_file_info(selector)
        return infos

    @contextmanager
    def _expecting(self, expected: str) -> Iterator[None]:
        with _expecting(expected, self.shown):
            yield


def open_folder(uri: str | Path) -> Folder:
    """Return the folder at a local path or at a URI, which need not exist.

    Raises:
        InvalidInput: pyarrow knows no filesystem for the URI.
    """
    uri = os.fspath(uri)
    shown = without_secrets(uri)
    if "://" not in uri:
        return Folder(fs.LocalFileSystem(), str(Path(uri).absolute()), shown)
    with _expecting("a URI of a filesystem that pyarrow knows, such as s3://bucket/name", shown):
        filesystem, path = fs.FileSystem.from_uri(uri)
    return Folder(filesystem, path.rstrip("/"), shown)


@contextmanager
def _expecting(expected: str, shown: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = without_secrets(str(error).strip().split("\n", 1)[0][:300])
        raise InvalidInput(f"expected {expected}, got {shown}: {reason}") from error
