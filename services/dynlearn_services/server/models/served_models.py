"""ServedModels: which versions are in memory, and which of them answers by default.

What is served follows the registry: a new version or an alias that moves is seen within a second,
loaded and warmed aside, and only then takes the place of the old one, which stays for those who
ask for it by its version.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from dynlearn.config.choices import PredictionPrecision
from dynlearn.errors import CorruptData, NotFound, Unavailable, nearest
from dynlearn.registry import ModelVersion, Registry
from dynlearn_services.server.metrics import Metrics
from dynlearn_services.server.models import memory
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.registry_watch import RegistryWatch
from dynlearn_services.server.models.served_model import ServedModel, VersionState, read_first

logger = logging.getLogger(__name__)


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
        self._read = partial(LoadedModel.load, device=device, precision=precision)
        self._limit = memory_limit_gib * 2**30
        self._metrics = metrics
        self._serves_all = not references
        self._unloaded: set[str] = set()
        # Seen in the registry, but not served yet.
        self._new: dict[str, ServedModel] = {}
        self._loading = threading.Lock()
        self._watch: RegistryWatch | None = None
        # Replaced whole, so that readers need no lock.
        self._served: Mapping[str, ServedModel] = read_first(registry, references, self._read)
        # Of a model that is unloaded too, for when it is loaded again.
        self._references = {name: served.reference for name, served in self._served.items()}

    def open(self, warm_up: Callable[[LoadedModel], None]) -> None:
        """Warm the first versions, make them answer, and begin to watch the registry.

        Args:
            warm_up: runs a model once where it is going to run.
        """
        self._warm_up = warm_up
        for served in self._served.values():
            (first,) = served.versions.values()
            warm_up(first)
            served.swap(first)
            self._count(first.name, served)
        self._watch = RegistryWatch(self._registry, self._wanted, self._follow_if_served)

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()

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

    async def find_version(self, name: str, version: str | None) -> LoadedModel:
        """Return a version, or the one that answers by default where none is named.

        What is not in memory is read from the registry, away from the event loop.

        Raises:
            NotFound: there is no such model or version.
            Unavailable: the model is still warming up.
            CorruptData: the version is truncated or altered.
        """
        if version is None:
            return self.find(name)
        found = self._find_loaded(name, version)
        if found is None:
            found = await asyncio.to_thread(self.load_version, name, version)
        return found

    def load_version(self, name: str, version: str) -> LoadedModel:
        """Return a version, read from the registry if need be; this may take a while.

        Raises:
            NotFound: there is no such model or version.
            Unavailable: the model is still warming up.
            CorruptData: the version is truncated or altered.
        """
        with self._loading:
            found = self._find_loaded(name, version)
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
        return sorted({*self._registry.versions(name), *self._require(name).versions}, key=int)

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
            served = self._served.get(name) or ServedModel(self._references.get(name, name))
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
        return [
            state
            for name in sorted({*self._registry.names(), *self._served})
            for state in self._served.get(name, ServedModel(name)).states(
                name, self._registry.versions(name)
            )
        ]

    def _find_loaded(self, name: str, version: str) -> LoadedModel | None:
        self.find(name)
        found = self._require(name).versions.get(version)
        if found is not None:
            found.last_used = time.monotonic()
        return found

    def _require(self, name: str) -> ServedModel:
        served = self._served.get(name)
        if served is None:
            raise NotFound(f"expected a served model, got {name!r}; {nearest(name, self._served)}")
        return served

    def _wanted(self) -> list[ServedModel]:
        """Return what is to follow the registry: what is served, and what is new there."""
        served = dict(self._served)
        if self._serves_all:
            new = set(self._registry.names()) - served.keys() - self._unloaded
            served |= {name: self._new.setdefault(name, ServedModel(name)) for name in new}
        return list(served.values())

    def _follow_if_served(self, served: ServedModel, version: ModelVersion) -> None:
        with self._loading:
            if version.name not in self._unloaded:
                self._follow(served, version)

    def _follow(self, served: ServedModel, version: ModelVersion) -> None:
        """Make a version the one that answers by default, when it is warm."""
        before = served.current
        if before is not None and before.version == version.version:
            return
        loaded = served.versions.get(version.version) or self._load(served, version)
        served.swap(loaded)
        self._count(version.name, served)
        if version.name not in self._served:
            self._served = {**self._served, version.name: served}
            self._new.pop(version.name, None)
        else:
            was = before.version if before else "none"
            logger.info("model %s: version %s in place of %s", version.name, version.version, was)
        self._keep_within_limit()

    def _load(self, served: ServedModel, version: ModelVersion) -> LoadedModel:
        loaded = self._read(version)
        self._warm_up(loaded)
        served.keep(loaded)
        self._count(version.name, served)
        return loaded

    def _keep_within_limit(self) -> None:
        left = memory.evict(self._served, self._limit)
        for name in left:
            self._count(name, self._served[name])
        if left:
            # Here, where nothing holds what has left.
            memory.hand_back()

    def _count(self, name: str, served: ServedModel) -> None:
        current = served.current.version if served.current else None
        self._metrics.observe_versions(name, current, tuple(served.versions))
