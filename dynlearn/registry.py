"""Published models: immutable versions and movable aliases on a folder.

``<root>/<name>/<version>/`` holds ``config.json``, ``model.safetensors``, ``training.json``,
``metrics.json``, ``figures/``, ``README.md`` and ``checksums.json``;
``<root>/<name>/aliases/<alias>`` holds a version, and ``<root>/<name>/last_version`` the highest
number that was ever given: that of a version which is gone is not given again.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dynlearn.errors import Busy, CorruptData, InvalidInput, NotFound, nearest
from dynlearn.storage.checksums import write_checksums
from dynlearn.storage.files import check_name, read_bytes, write_bytes
from dynlearn.storage.locks import LOCK_FILE, one_writer

CHAMPION = "champion"
_ALIASES = "aliases"
_LAST_VERSION = "last_version"
_STAGING = ".staging-"
_MAX_VERSION_BYTES = 64
_LOCK_SECONDS = 600.0


@dataclass(frozen=True)
class ModelVersion:
    """One published model."""

    name: str
    version: str
    folder: Path


class Registry:
    """The models under one folder."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    def names(self) -> list[str]:
        """Return the models that have a version."""
        if not self.root.is_dir():
            return []
        return sorted(
            path.name
            for path in self.root.iterdir()
            if not path.name.startswith(".") and self.versions(path.name)
        )

    def versions(self, name: str) -> list[str]:
        """Return a model's versions, oldest first."""
        folder = self.root / name
        if not folder.is_dir():
            return []
        found = (path.name for path in folder.iterdir() if path.is_dir())
        return sorted((name for name in found if name.isdecimal()), key=int)

    def aliases(self, name: str) -> dict[str, str]:
        """Return the version behind each of a model's aliases; empty where it cannot be read."""
        folder = self.root / name / _ALIASES
        if not folder.is_dir():
            return {}
        return {
            path.name: _read_version(path)
            for path in sorted(folder.iterdir())
            if not path.name.startswith(".")
        }

    def publish(
        self, name: str, write: Callable[[Path], None], promote: bool = True
    ) -> ModelVersion:
        """Publish what ``write`` puts into an empty folder as the next version.

        The version appears whole or not at all.

        Args:
            name: of the model.
            write: puts the version's files into the folder that it is given.
            promote: to champion; else only where there is none that could be kept.

        Raises:
            InvalidInput: the name cannot be a folder's, or the folder cannot be written to.
            Busy: others have been publishing this model all the while.
        """
        check_name(name, "model")
        with ExitStack() as held:
            with self._writing(name):
                staging = self._stage(name)
                # While it is held, whoever else publishes leaves the folder alone.
                held.enter_context(one_writer(staging / LOCK_FILE, f"the new {name}"))
            try:
                write(staging)
                write_checksums(staging)
                staging.chmod(0o755)
                with self._writing(name):
                    version = self._take_number(name)
                    held.close()
                    os.rename(staging, self.root / name / version)
                    champion = self.aliases(name).get(CHAMPION)
                    if promote or champion not in self.versions(name):
                        self._write_alias(name, CHAMPION, version)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return ModelVersion(name, version, self.root / name / version)

    def set_alias(self, name: str, alias: str, version: str | int) -> None:
        """Point an alias at a version.

        Raises:
            NotFound: there is no such model or version.
            InvalidInput: the alias could be taken for a version, or for a path.
            Busy: others have been publishing this model all the while.
        """
        version = str(version)
        self._require(name, version)
        if check_name(alias, "model alias").isdecimal():
            raise InvalidInput(f"expected an alias that is no number, got {alias!r}")
        with self._writing(name):
            self._write_alias(name, alias, version)

    def resolve(self, reference: str) -> ModelVersion:
        """Find a model version by ``NAME``, ``NAME/VERSION`` or ``NAME@ALIAS``.

        A bare name means its champion.

        Raises:
            NotFound: there is no such model, version or alias.
            CorruptData: an alias names a version that is gone.
        """
        name, slash, version = reference.partition("/")
        if slash:
            return self._require(name, version)
        name, _, alias = reference.partition("@")
        alias = alias or CHAMPION
        self._require_name(name)
        aliases = self.aliases(name)
        if alias not in aliases:
            raise NotFound(
                f"expected an alias of model {name}, got {alias!r}; {nearest(alias, aliases)}"
            )
        if aliases[alias] not in self.versions(name):
            raise CorruptData(
                f"expected alias {alias} of model {name} to name a version, got "
                f"{aliases[alias]!r}; set it with `dynlearn models alias`"
            )
        return ModelVersion(name, aliases[alias], self.root / name / aliases[alias])

    def _require_name(self, name: str) -> None:
        if name not in self.names():
            raise NotFound(f"expected a model, got {name!r}; {nearest(name, self.names())}")

    def _require(self, name: str, version: str) -> ModelVersion:
        self._require_name(name)
        if version not in self.versions(name):
            raise NotFound(
                f"expected a version of model {name}, got {version!r}; "
                f"there is {', '.join(self.versions(name))}"
            )
        return ModelVersion(name, version, self.root / name / version)

    def _writing(self, name: str) -> AbstractContextManager[None]:
        """Hold a model's lock, and make its folder if need be."""
        folder = self.root / name
        with self._expecting_room():
            (folder / _ALIASES).mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return one_writer(folder / LOCK_FILE, f"the model {name}", _LOCK_SECONDS)

    def _stage(self, name: str) -> Path:
        """Return a new empty folder, and remove those of publishers that were killed."""
        for left in (self.root / name).glob(f"{_STAGING}*"):
            with suppress(Busy), one_writer(left / LOCK_FILE, f"the new {name}"):
                shutil.rmtree(left, ignore_errors=True)
        with self._expecting_room():
            return Path(tempfile.mkdtemp(dir=self.root / name, prefix=_STAGING))

    @contextmanager
    def _expecting_room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidInput(
                f"expected a folder that can be written to, got {self.root} ({error.strerror}); "
                "name another home with --home"
            ) from error

    def _write_alias(self, name: str, alias: str, version: str) -> None:
        try:
            write_bytes(self.root / name / _ALIASES / alias, f"{version}\n".encode())
        except OSError as error:
            raise InvalidInput(
                f"expected a file that can be written, got {self.root / name / _ALIASES / alias} "
                f"({error.strerror}); remove what is there"
            ) from error

    def _take_number(self, name: str) -> str:
        """Return a version's number that nobody has had, and never gives it again."""
        file = self.root / name / _LAST_VERSION
        # Registries of before have no such file, but may have an alias to what is gone.
        given = [*self.versions(name), *self.aliases(name).values(), _read_version(file)]
        version = str(1 + max((int(number) for number in given if number.isdecimal()), default=0))
        write_bytes(file, f"{version}\n".encode())
        return version


def _read_version(path: Path) -> str:
    try:
        return read_bytes(path, _MAX_VERSION_BYTES).decode("ascii").strip()
    except (OSError, CorruptData, UnicodeDecodeError):
        return ""
