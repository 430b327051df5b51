"""Matcher: which row of the table a request is for, found once, by the segments of its path."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from starlette.types import Scope

from dynlearn.errors import InvalidInput
from dynlearn_services.server.routes.route import Route
from dynlearn_services.tokens import Role, least_role

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Match:
    """A path of the table.

    Attributes:
        routes: of this path, by method.
        role: the least of theirs.
        parts: of the path, by their names in the template.
    """

    routes: Mapping[str, Route]
    role: Role | None
    parts: Mapping[str, str]

    @property
    def methods(self) -> str:
        """What the header ``Allow`` says."""
        allowed = {*self.routes, *(("HEAD",) if "GET" in self.routes else ())}
        return ", ".join(sorted(allowed))


@dataclass
class _Node:
    """A path as far as one segment: what may follow, or which routes end here."""

    following: dict[str, "_Node"] = field(default_factory=dict)
    any: "_Node | None" = None
    routes: dict[str, Route] = field(default_factory=dict)
    role: Role | None = None
    names: tuple[str, ...] = ()


class Matcher:
    """A tree of the segments of all paths; no path has two ways through it."""

    def __init__(self, routes: Iterable[Route]):
        """Build the tree.

        Raises:
            ValueError: two routes could be meant by one request.
        """
        self._root = _Node()
        for route in routes:
            self._add(route)

    def find(self, segments: Sequence[str]) -> Match | None:
        """Return what a path is declared as, or None where it is not."""
        node, values = self._root, []
        for segment in segments:
            following = node.following.get(segment)
            if following is None:
                following = node.any
                if following is None or not _is_name(segment):
                    return None
                values.append(segment)
            node = following
        if not node.routes:
            return None
        return Match(node.routes, node.role, dict(zip(node.names, values, strict=True)))

    def _add(self, route: Route) -> None:
        node = self._root
        for segment in route.path.split("/"):
            if segment.startswith("{"):
                node.any = node.any or _Node()
                following = node.any
            else:
                following = node.following.setdefault(segment, _Node())
            if node.any and node.following:
                raise ValueError(f"expected one meaning of each path, got two: {route.path}")
            node = following
        names = tuple(route.parts)
        if route.method in node.routes or (node.routes and node.names != names):
            raise ValueError(f"expected one route of each path and method, got two: {route.path}")
        node.routes[route.method], node.names = route, names
        node.role = least_role(each.role for each in node.routes.values())


def split_path(scope: Scope) -> list[str]:
    """Return the segments of a request's path, each decoded once, after it was cut off.

    The first is what stands before the first slash: nothing.

    Raises:
        InvalidInput: one holds control characters, or is not UTF-8.
    """
    raw: bytes | None = scope.get("raw_path")
    segments: list[str]
    try:
        if raw is None:
            segments = scope["path"].split("/")
        elif b"%" in raw:
            segments = [unquote_to_bytes(part).decode() for part in raw.split(b"/")]
        else:
            segments = raw.decode().split("/")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"path: expected UTF-8, got {error.object[:80]!r}") from error
    for segment in segments:
        if _CONTROL.search(segment):
            raise InvalidInput(
                f"path: expected no control characters, got {segment[:80]!r}; see /openapi.json"
            )
    return segments


def _is_name(segment: str) -> bool:
    """Whether a segment can be the name of something, and leads nowhere else as a path."""
    return segment not in ("", ".", "..") and not {"/", "\\"} & set(segment)
