"""Published models: immutable versions and movable aliases on a folder.

``<root>/<name>/<version>/`` holds ``config.json``, ``model.safetensors``, ``training.json``,
``metrics.json``, ``figures/``, ``README.md`` and ``checksums.json``;
``<root>/<name>/aliases/<alias>`` holds a version.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dynlearn.errors import CorruptData, InvalidInput, NotFound, nearest
from dynlearn.storage.checksums import write_checksums
from dynlearn.storage.files import check_name, write_bytes

CHAMPION = "champion"
_ALIASES = "aliases"
_MAX_ALIAS_BYTES = 64


@dataclass(frozen=True)
class ModelVersion:
    """One published model."""

    name: str
    version: str
    folder: Path


class Registry:
    """The models under one folder."""

    def __init__(self, root: Path):
        self.root = root

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
            path.name: _read_alias(path)
            for path in sorted(folder.iterdir())
            if not path.name.startswith(".")
        }

    def publish(self, name: str, write: Callable[[Path], None]) -> ModelVersion:
        """Publish what ``write`` puts into an empty folder as the next version, and as champion.

        The version appears whole or not at all.

        Raises:
            InvalidInput: the name cannot be a folder's, or the folder cannot be written to.
        """
        check_name(name, "model")
        try:
            (self.root / name / _ALIASES).mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(dir=self.root / name, prefix=".staging-"))
        except OSError as error:
            raise InvalidInput(
                f"expected a folder that can be written to, got {self.root} ({error.strerror}); "
                "name another home with --home"
            ) from error
        try:
            write(staging)
            write_checksums(staging)
            staging.chmod(0o755)
            version = self._rename_to_next(name, staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self.set_alias(name, CHAMPION, version)
        return ModelVersion(name, version, self.root / name / version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version.

        Raises:
            NotFound: there is no such model or version.
            InvalidInput: the alias could be taken for a version, or for a path.
        """
        self._require(name, version)
        if check_name(alias, "model alias").isdecimal():
            raise InvalidInput(f"expected an alias that is no number, got {alias!r}")
        try:
            write_bytes(self.root / name / _ALIASES / alias, f"{version}\n".encode())
        except OSError as error:
            raise InvalidInput(
                f"expected a file that can be written, got {self.root / name / _ALIASES / alias} "
                f"({error.strerror}); remove what is there"
            ) from error

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

    def _rename_to_next(self, name: str, staging: Path) -> str:
        # Two publishers may reach for the same number: renaming onto a folder that has content
        # fails, and the loser takes the next.
        while True:
            version = str(1 + max(map(int, self.versions(name)), default=0))
            try:
                os.rename(staging, self.root / name / version)
            except OSError:
                if not (self.root / name / version).exists():
                    raise
            else:
                return version


def _read_alias(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_ALIAS_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
