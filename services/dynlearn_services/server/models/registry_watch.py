"""RegistryWatch: a thread that sees new versions, and aliases that move."""

import logging
import threading
from collections.abc import Callable, Iterable

from dynlearn.errors import DynlearnError
from dynlearn.registry import ModelVersion, Registry
from dynlearn_services.server.models.served_model import ServedModel

_LOOK_EVERY = 0.25
_RETRY_AFTER_LOOKS = 20

logger = logging.getLogger(__name__)


class RegistryWatch:
    """Looks at the registry a few times a second, from its start until it is closed."""

    def __init__(
        self,
        registry: Registry,
        wanted: Callable[[], Iterable[ServedModel]],
        follow: Callable[[ServedModel, ModelVersion], None],
    ):
        """Start the thread.

        Args:
            registry: where to look.
            wanted: what is to follow the registry.
            follow: makes a version the one that answers by default.
        """
        self._registry = registry
        self._wanted = wanted
        self._follow = follow
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_LOOK_EVERY):
            self._look_at_all()

    def _look_at_all(self) -> None:
        # On its own, so that nothing is held between two looks.
        try:
            for served in self._wanted():
                self._look(served)
        except OSError as error:
            logger.warning("cannot read the registry: %s", error)

    def _look(self, served: ServedModel) -> None:
        try:
            version = self._registry.resolve(served.reference)
        except DynlearnError:
            # Deleted, or about to be replaced: what is in memory goes on answering.
            return
        if served.current is not None and version.version == served.current.version:
            return
        served.looks += 1
        if version.version in served.faults and served.looks % _RETRY_AFTER_LOOKS:
            return
        try:
            self._follow(served, version)
        except Exception as error:
            # Whatever one version does, the others are still to be seen.
            if version.version not in served.faults:
                logger.error("model %s: version %s: %s", version.name, version.version, error)
            served.faults[version.version] = str(error)
