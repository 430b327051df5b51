"""VersionReader: versions of the registry, read and run; a damaged one is read only once."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dynlearn.errors import CorruptData, DynlearnError, InvalidInput, Unavailable
from dynlearn.registry import ModelVersion, Registry
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.version_files import (
    Stamp,
    VersionFiles,
    are_checked,
    stamp_of,
)

# What is not the files' fault may pass.
_RETRY_SECONDS = 5.0

_UNCHECKED = "no checksums.json, without which damage is not seen"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Fault:
    """Why a version cannot be served, for those who ask.

    Attributes:
        reason: without the server's own paths.
        stamp: of the files that are at fault; None where something else may be.
        until: a time of `time.monotonic`, from when on it may be tried again all the same.
    """

    reason: str
    stamp: Stamp | None
    until: float


class VersionReader:
    """Reads the versions of one registry; for any thread."""

    def __init__(
        self,
        registry: Registry,
        read: Callable[[ModelVersion], LoadedModel],
        allow_unchecked: bool,
    ):
        """Keep what reads.

        Args:
            registry: whose versions they are.
            read: a version from its folder.
            allow_unchecked: read versions without checksums too.
        """
        self._registry = registry
        self._read = read
        self._allow_unchecked = allow_unchecked
        self._lock = threading.Lock()
        self._faults: dict[tuple[str, str], _Fault] = {}
        self._files: dict[tuple[str, str], VersionFiles] = {}

    def read(self, version: ModelVersion) -> LoadedModel:
        """Return a version from its folder.

        Raises:
            CorruptData: it is truncated, altered, or has no checksums though it must.
        """
        if not (self._allow_unchecked or are_checked(version.folder)):
            raise CorruptData(
                f"expected checksums.json in {version.folder}, got none, without which damage is "
                "not seen; publish the model anew, or serve with --allow-unchecked"
            )
        # Before they are read, so that what changes meanwhile is seen afterwards.
        files = VersionFiles.look(version.folder)
        loaded = self._read(version)
        with self._lock:
            self._files[version.name, version.version] = files
            self._faults.pop((version.name, version.version), None)
        return loaded

    def load(self, version: ModelVersion, warm_up: Callable[[LoadedModel], None]) -> LoadedModel:
        """Return a version that has run once, or say why there is none, without trying again.

        Raises:
            Unavailable: its files are damaged, or it does not run.
        """
        key = (version.name, version.version)
        stamp = stamp_of(version.folder)
        fault = self._faults.get(key)
        if fault is not None and fault.stamp in (None, stamp) and time.monotonic() < fault.until:
            raise Unavailable(fault.reason)
        try:
            loaded = self.read(version)
            warm_up(loaded)
        except Exception as error:
            raise Unavailable(self._remember(version, stamp, error)) from error
        return loaded

    def reason(self, name: str, version: str) -> str:
        """Return why a version is not in memory, or what is to be known of it if it is."""
        fault, folder = self._faults.get((name, version)), self._registry.root / name / version
        if fault is not None and fault.stamp in (None, stamp_of(folder)):
            return fault.reason
        return _UNCHECKED if folder.exists() and not are_checked(folder) else ""

    def replaced(self, name: str, versions: Iterable[str]) -> list[str]:
        """Return those versions whose files have become others since they were read."""
        return [
            version
            for version in versions
            if (files := self._files.get((name, version))) is not None
            and files.have_become_others(self._registry.root / name / version)
        ]

    def _remember(self, version: ModelVersion, stamp: Stamp, error: Exception) -> str:
        """Keep why a version cannot be served, and return it as it may be told."""
        of_the_files = isinstance(error, InvalidInput)
        why = str(error) if isinstance(error, DynlearnError) else "its log holds the cause"
        for path, name in (
            (f"{version.folder}/", ""),
            (str(version.folder), f"{version.name}/{version.version}"),
            (f"{self._registry.root}/", ""),
        ):
            why = why.replace(path, name)
        reason = f"version {version.version} of model {version.name} cannot be served: {why}"
        key = (version.name, version.version)
        with self._lock:
            known = self._faults.get(key)
            until = float("inf") if of_the_files else time.monotonic() + _RETRY_SECONDS
            self._faults[key] = _Fault(reason, stamp if of_the_files else None, until)
        if known is None or known.reason != reason:
            logger.error("model %s: version %s: %s", *key, error)
        return reason
