"""WantedModels: which models are to be served, and what the default version of each follows."""

from collections.abc import Iterable, Mapping

from dynlearn_services.server.models.served_model import ServedModel


class WantedModels:
    """Those that were configured, or all there are; without those that have been unloaded."""

    def __init__(self, references: Mapping[str, str], serves_all: bool):
        """Begin with what was configured.

        Args:
            references: what the default version of each model follows, by its name.
            serves_all: whether models that are published later are wanted too.
        """
        # Of a model that is unloaded too, for when it is loaded again.
        self._references = dict(references)
        self._serves_all = serves_all
        self._unloaded: set[str] = set()
        # Seen in the registry, but not served yet.
        self._new: dict[str, ServedModel] = {}

    def __contains__(self, name: str) -> bool:
        return name not in self._unloaded

    def reference(self, name: str) -> str:
        """Return what a model's default version follows: its champion, unless it was said."""
        return self._references.get(name, name)

    def add(self, name: str) -> None:
        """Want a model that is served from now on."""
        self._unloaded.discard(name)
        self._new.pop(name, None)

    def remove(self, name: str) -> None:
        """Want a model no more."""
        self._unloaded.add(name)
        self._new.pop(name, None)

    def among(
        self, published: Iterable[str], served: Mapping[str, ServedModel]
    ) -> list[ServedModel]:
        """Return what is to follow the registry: what is served, and what is new there."""
        wanted = dict(served)
        if self._serves_all:
            new = set(published) - served.keys() - self._unloaded
            wanted |= {name: self._new.setdefault(name, ServedModel(name)) for name in new}
        return list(wanted.values())
