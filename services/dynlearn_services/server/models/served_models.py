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
from concurrent.futures import ThreadPoolExecutor
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
from dynlearn_services.server.models.version_reader import VersionReader
from dynlearn_services.server.models.wanted_models import WantedModels

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
        allow_unchecked: bool = False,
    ):
        """Load the versions that the references name; with none, of all models there are.

        Raises:
            NotFound: a reference names nothing.
            InvalidInput: two name the same model.
            CorruptData: a version is truncated or altered, or has no checksums though it must.
        """
        self._registry = registry
        read = partial(LoadedModel.load, device=device, precision=precision)
        self._reader = VersionReader(registry, read, allow_unchecked)
        self._limit = memory_limit_gib * 2**30
        self._metrics = metrics
        self._loading = threading.Lock()
        # Of their own, so that those who wait for versions leave the threads that others need.
        self._waiting = ThreadPoolExecutor(1, "versions")
        self._watch: RegistryWatch | None = None
        # Replaced whole, so that readers need no lock.
        first = read_first(registry, references, self._reader.read)
        self._served: Mapping[str, ServedModel] = first
        named = {name: served.reference for name, served in first.items()}
        self._wanted = WantedModels(named, serves_all=not references)

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
        self._watch = RegistryWatch(self._registry, self._look_for, self._follow_if_wanted)

    def close(self) -> None:
        """Stop watching, and reading."""
        if self._watch is not None:
            self._watch.close()
        self._waiting.shutdown(cancel_futures=True)

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
            Unavailable: the model is still warming up, or the version is damaged.
        """
        if version is None:
            return self.find(name)
        found = self._find_loaded(name, version)
        if found is None:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._waiting, self.load_version, name, version)
        return found

    def load_version(self, name: str, version: str) -> LoadedModel:
        """Return a version, read from the registry if need be; this may take a while.

        Raises:
            NotFound: there is no such model or version.
            Unavailable: the model is still warming up, or the version is damaged.
        """
        with self._loading:
            found = self._find_loaded(name, version)
            if found is None:
                wanted = self._registry.resolve(f"{name}/{version}")
                found = self._load(self._require(name), wanted)
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
            Unavailable: the version is damaged.
        """
        with self._loading:
            known = self._registry.names()
            if name not in known:
                raise NotFound(f"expected a model, got {name!r}; {nearest(name, known)}")
            served = self._served.get(name) or ServedModel(self._wanted.reference(name))
            try:
                version = self._registry.resolve(served.reference)
            except CorruptData as error:
                raise Unavailable(str(error)) from error
            self._follow(served, version)
            self._wanted.add(name)

    def unload(self, name: str, whether_served_or_not: bool = False) -> None:
        """Serve a model no more.

        Raises:
            NotFound: no model of this name is served, though it must be.
        """
        with self._loading:
            if not whether_served_or_not:
                self._require(name)
            self._wanted.remove(name)
            self._served = {key: value for key, value in self._served.items() if key != name}
            self._metrics.observe_versions(name, None, ())
        memory.hand_back()

    def index(self) -> list[VersionState]:
        """Return every version of every model in the registry, and of those in memory."""
        return [
            state
            for name in sorted({*self._registry.names(), *self._served})
            for state in self._served.get(name, ServedModel(name)).states(
                name, self._registry.versions(name), partial(self._reader.reason, name)
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

    def _look_for(self) -> list[ServedModel]:
        return self._wanted.among(self._registry.names(), self._served)

    def _follow_if_wanted(self, served: ServedModel, version: ModelVersion) -> None:
        with self._loading:
            if version.name in self._wanted:
                for number in self._reader.replaced(version.name, list(served.versions)):
                    logger.warning("model %s: version %s has other files", version.name, number)
                    del served.versions[number]
                self._follow(served, version)

    def _follow(self, served: ServedModel, version: ModelVersion) -> None:
        """Make a version the one that answers by default, when it is warm."""
        before = served.current
        if before is not None and before is served.versions.get(version.version):
            return
        loaded = served.versions.get(version.version) or self._load(served, version)
        served.swap(loaded)
        self._count(version.name, served)
        if version.name not in self._served:
            self._served = {**self._served, version.name: served}
            self._wanted.add(version.name)
        else:
            was = before.version if before else "none"
            logger.info("model %s: version %s in place of %s", version.name, version.version, was)
        self._keep_within_limit()

    def _load(self, served: ServedModel, version: ModelVersion) -> LoadedModel:
        loaded = self._reader.load(version, self._warm_up)
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
