"""ServedModels: which versions are in memory, and which of them answers by default.

What is served follows the registry: a new version or an alias that moves is seen within a second,
loaded and warmed aside, and only then takes the place of the old one, which stays for those who
ask for it by its version.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from dynlearn.config.choices import PredictionPrecision
from dynlearn.errors import CorruptData, DynlearnError, InvalidInput, NotFound, Unavailable, nearest
from dynlearn.registry import ModelVersion, Registry
from dynlearn_services.server.metrics import Metrics
from dynlearn_services.server.models import memory
from dynlearn_services.server.models.loaded_model import LoadedModel

_LOOK_EVERY = 0.25
_RETRY_AFTER_LOOKS = 20
_GIB = 2**30

logger = logging.getLogger(__name__)


@dataclass
class _Served:
    """One name that is served.

    Attributes:
        reference: what its default version follows, as `Registry.resolve` takes it.
        current: the version that answers by default; None until it is warm.
        versions: those in memory.
        faults: why a version cannot be loaded.
        looks: how often the registry has been looked at since a load failed.
    """

    reference: str
    current: LoadedModel | None = None
    versions: dict[str, LoadedModel] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    looks: int = 0


@dataclass(frozen=True)
class VersionState:
    """A version as the protocol's repository index shows it."""

    name: str
    version: str
    state: str
    reason: str = ""


class ServedModels:
    """The models of a server, by name. Any thread may ask; loading is under one lock."""

    def __init__(
        self,
        registry: Registry,
        references: Sequence[str],
        device: torch.device,
        precision: PredictionPrecision,
        memory_limit_gib: float,
        metrics: Metrics,
    ):
        """Load the versions that the references name; with none, of all models there are.

        Raises:
            NotFound: a reference names nothing.
            InvalidInput: two name the same model.
            CorruptData: a version is truncated or altered.
        """
        self._registry = registry
        self._device = device
        self._precision = precision
        self._limit = memory_limit_gib * _GIB
        self._metrics = metrics
        self._serves_all = not references
        self._unloaded: set[str] = set()
        # Seen in the registry, but not served yet.
        self._new: dict[str, _Served] = {}
        self._loading = threading.Lock()
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None
        # Replaced whole, so that readers need no lock.
        self._served: Mapping[str, _Served] = {}
        for reference in references or registry.names():
            served = _Served(reference)
            try:
                version = registry.resolve(reference)
                served.versions[version.version] = self._read(version)
            except DynlearnError as error:
                if references:
                    raise
                logger.error("model %s: %s", reference, error)
            else:
                other = self._served.get(version.name)
                if other is not None:
                    raise InvalidInput(
                        f"expected one reference to a model, got {other.reference} and {reference};"
                        " others of its versions are served to those who name them"
                    )
                self._served = {**self._served, version.name: served}
        # Of a model that is unloaded too, for when it is loaded again.
        self._references = {name: served.reference for name, served in self._served.items()}
        if not self._served:
            raise NotFound(
                f"expected a model in {registry.root}, got none; train one with `dynlearn train`"
            )

    def open(self, warm_up: Callable[[LoadedModel], None]) -> None:
        """Warm the first versions, make them answer, and begin to watch the registry.

        Args:
            warm_up: runs a model once where it is going to run.
        """
        self._warm_up = warm_up
        for served in self._served.values():
            (first,) = served.versions.values()
            warm_up(first)
            self._swap(served, first)
        self._watcher = threading.Thread(target=self._watch, name="registry", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        if self._watcher is not None:
            self._watcher.join()

    @property
    def names(self) -> list[str]:
        """The names that are served."""
        return sorted(self._served)

    def require_ready(self) -> None:
        """Check that every model has a version that answers.

        Raises:
            Unavailable: one is still warming up.
        """
        for name in self._served:
            self.find(name)

    def find(self, name: str) -> LoadedModel:
        """Return the version that answers by default.

        Raises:
            NotFound: no model of this name is served.
            Unavailable: it is still warming up.
        """
        served = self._require(name)
        if served.current is None:
            raise Unavailable(f"model {name} is warming up; ask again in a moment")
        return served.current

    def find_loaded(self, name: str, version: str) -> LoadedModel | None:
        """Return a version if it is in memory and warm.

        Raises:
            NotFound: no model of this name is served.
        """
        self.find(name)
        found = self._require(name).versions.get(version)
        if found is not None:
            found.last_used = time.monotonic()
        return found

    def load_version(self, name: str, version: str) -> LoadedModel:
        """Return a version, read from the registry if need be; this may take a while.

        Raises:
            NotFound: there is no such model or version.
            CorruptData: it is truncated or altered.
        """
        with self._loading:
            found = self.find_loaded(name, version)
            if found is None:
                served = self._require(name)
                try:
                    found = self._load(served, self._registry.resolve(f"{name}/{version}"))
                except CorruptData as error:
                    served.faults[version] = str(error)
                    raise
                self._keep_within_limit()
            return found

    def versions(self, name: str) -> list[str]:
        """Return the versions that can be asked for, oldest first."""
        known = {*self._registry.versions(name), *self._require(name).versions}
        return sorted(known, key=int)

    def load(self, name: str) -> None:
        """Serve a model, as the protocol's load asks for: the version that it was configured with.

        That is the champion, where nothing else was said.

        Raises:
            NotFound: there is no such model.
            CorruptData: the version is truncated or altered.
        """
        with self._loading:
            known = self._registry.names()
            if name not in known:
                raise NotFound(f"expected a model, got {name!r}; {nearest(name, known)}")
            served = self._served.get(name) or _Served(self._references.get(name, name))
            self._follow(served, self._registry.resolve(served.reference))
            self._unloaded.discard(name)

    def unload(self, name: str) -> None:
        """Serve a model no more.

        Raises:
            NotFound: no model of this name is served.
        """
        with self._loading:
            self._require(name)
            self._unloaded.add(name)
            self._new.pop(name, None)
            self._served = {key: value for key, value in self._served.items() if key != name}
            self._metrics.observe_versions(name, None, ())
        memory.hand_back()

    def index(self) -> list[VersionState]:
        """Return every version of every model in the registry, and of those in memory."""
        states = []
        for name in sorted({*self._registry.names(), *self._served}):
            served = self._served.get(name, _Served(name))
            for version in sorted({*self._registry.versions(name), *served.versions}, key=int):
                if version in served.versions:
                    states.append(VersionState(name, version, "READY"))
                else:
                    reason = served.faults.get(version, "not loaded")
                    states.append(VersionState(name, version, "UNAVAILABLE", reason))
        return states

    def _require(self, name: str) -> _Served:
        served = self._served.get(name)
        if served is None:
            raise NotFound(f"expected a served model, got {name!r}; {nearest(name, self._served)}")
        return served

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_EVERY):
            try:
                self._look()
            except OSError as error:
                logger.warning("cannot read the registry: %s", error)

    def _look(self) -> None:
        served = dict(self._served)
        if self._serves_all:
            new = set(self._registry.names()) - served.keys() - self._unloaded
            served |= {name: self._new.setdefault(name, _Served(name)) for name in new}
        for one in served.values():
            try:
                version = self._registry.resolve(one.reference)
            except DynlearnError:
                # Deleted, or about to be replaced: what is in memory goes on answering.
                continue
            if one.current is not None and version.version == one.current.version:
                continue
            one.looks += 1
            if version.version in one.faults and one.looks % _RETRY_AFTER_LOOKS:
                continue
            with self._loading:
                if version.name in self._unloaded:
                    continue
                try:
                    self._follow(one, version)
                except Exception as error:
                    # Whatever one version does, the others are still to be seen.
                    if version.version not in one.faults:
                        logger.error(
                            "model %s: version %s: %s", version.name, version.version, error
                        )
                    one.faults[version.version] = str(error)

    def _follow(self, served: _Served, version: ModelVersion) -> None:
        """Make a version the one that answers by default, when it is warm."""
        before = served.current
        if before is not None and before.version == version.version:
            return
        loaded = served.versions.get(version.version) or self._load(served, version)
        self._swap(served, loaded)
        if version.name not in self._served:
            self._served = {**self._served, version.name: served}
            self._new.pop(version.name, None)
        else:
            logger.info(
                "model %s: version %s in place of %s",
                version.name,
                version.version,
                before.version if before else "none",
            )
        self._keep_within_limit()

    def _read(self, version: ModelVersion) -> LoadedModel:
        return LoadedModel.load(version, self._device, self._precision)

    def _load(self, served: _Served, version: ModelVersion) -> LoadedModel:
        loaded = self._read(version)
        self._warm_up(loaded)
        served.versions[version.version] = loaded
        served.faults.pop(version.version, None)
        self._count(served, loaded.name)
        return loaded

    def _swap(self, served: _Served, loaded: LoadedModel) -> None:
        if served.current is not None:
            served.current.last_used = time.monotonic()
        served.current = loaded
        self._count(served, loaded.name)

    def _keep_within_limit(self) -> None:
        if self._evict():
            # Here, where nothing holds what has left.
            memory.hand_back()

    def _evict(self) -> bool:
        """Let go of the versions asked for longest ago, but of none that answers by default."""
        kept = [
            (one, served) for served in self._served.values() for one in served.versions.values()
        ]
        size = sum(one.size for one, served in kept if one is not served.current)
        before = size
        for one, served in sorted(kept, key=lambda pair: pair[0].last_used):
            if size <= self._limit:
                break
            if one is not served.current:
                del served.versions[one.version]
                size -= one.size
                self._count(served, one.name)
        return bool(size < before)

    def _count(self, served: _Served, name: str) -> None:
        current = served.current.version if served.current else None
        self._metrics.observe_versions(name, current, tuple(served.versions))
