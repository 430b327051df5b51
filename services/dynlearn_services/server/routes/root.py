"""Root: the path under which a proxy shows the server."""

from collections.abc import Iterable, Sequence

from dynlearn.errors import InvalidInput
from dynlearn_services.server.routes.route import Route


class Root:
    """Segments that a path may begin with, for proxies that pass them on; others take them off."""

    def __init__(self, path: str, routes: Iterable[Route]):
        """Take it apart.

        Raises:
            InvalidInput: a route begins as it does, so that a path could be meant in two ways.
        """
        self._segments = path.split("/")[1:]
        taken = sorted({route.path.split("/")[1] for route in routes} & set(self._segments[:1]))
        if taken:
            raise InvalidInput(
                f"root_path: expected a path beside the server's own, got {path!r}, and there is "
                f"/{taken[0]}; choose another"
            )

    def within(self, segments: Sequence[str]) -> Sequence[str]:
        """Return the segments of a path without those of the root, where it begins with them."""
        end = 1 + len(self._segments)
        return [segments[0], *segments[end:]] if segments[1:end] == self._segments else segments
