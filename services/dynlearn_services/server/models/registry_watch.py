"""RegistryWatch: a thread that sees new versions, and aliases that move."""

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from dynlearn.errors import DynlearnError
from dynlearn.registry import ModelVersion, Registry
from dynlearn_services.server.models.served_model import ServedModel

_LOOK_EVERY = 0.25

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
            follow: makes a version the one that answers by default, or raises a `DynlearnError`.
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
        # Whatever one version does, the others are still to be seen.
        with suppress(DynlearnError):
            self._follow(served, version)
