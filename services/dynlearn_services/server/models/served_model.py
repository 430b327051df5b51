"""One name that is served: the version that answers by default, and the others in memory."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dynlearn.errors import DynlearnError, InvalidInput, NotFound
from dynlearn.registry import ModelVersion, Registry
from dynlearn_services.server.models.loaded_model import LoadedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VersionState:
    """A version as the protocol's repository index shows it."""

    name: str
    version: str
    state: str
    reason: str = ""


@dataclass
class ServedModel:
    """One name that is served.

    Attributes:
        reference: what its default version follows, as `Registry.resolve` takes it.
        current: the version that answers by default; None until it is warm.
        versions: those in memory.
    """

    reference: str
    current: LoadedModel | None = None
    versions: dict[str, LoadedModel] = field(default_factory=dict)

    def keep(self, loaded: LoadedModel) -> None:
        """Have a version in memory that is warm."""
        self.versions[loaded.version] = loaded

    def swap(self, loaded: LoadedModel) -> None:
        """Let a version answer by default."""
        if self.current is not None:
            self.current.last_used = time.monotonic()
        self.current = loaded

    def states(
        self, name: str, published: Iterable[str], reason: Callable[[str], str]
    ) -> list[VersionState]:
        """Return its versions, those in the registry and those in memory, oldest first.

        Args:
            name: of the model.
            published: the versions in the registry.
            reason: what is to be known of a version, if anything.
        """
        states = []
        for version in sorted({*published, *self.versions}, key=int):
            if version in self.versions:
                states.append(VersionState(name, version, "READY", reason(version)))
            else:
                why = reason(version) or "not loaded"
                states.append(VersionState(name, version, "UNAVAILABLE", why))
        return states


def read_first(
    registry: Registry,
    references: Sequence[str],
    read: Callable[[ModelVersion], LoadedModel],
) -> dict[str, ServedModel]:
    """Return what references name, each with its first version in memory, by the models' names.

    With no references, all models that can be read.

    Raises:
        NotFound: a reference names nothing, or there is no model.
        InvalidInput: two name the same model.
        CorruptData: a version is truncated or altered.
    """
    found: dict[str, ServedModel] = {}
    for reference in references or registry.names():
        served = ServedModel(reference)
        try:
            version = registry.resolve(reference)
            served.versions[version.version] = read(version)
        except DynlearnError as error:
            if references:
                raise
            logger.error("model %s: %s", reference, error)
            continue
        other = found.setdefault(version.name, served)
        if other is not served:
            raise InvalidInput(
                f"expected one reference to a model, got {other.reference} and {reference};"
                " others of its versions are served to those who name them"
            )
    if not found:
        raise NotFound(
            f"expected a model in {registry.root}, got none; train one with `dynlearn train`"
        )
    return found
