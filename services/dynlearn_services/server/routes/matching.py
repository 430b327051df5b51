"""Matching: which route a request asks, by the segments of its path.

A path is cut at its slashes before anything in it is decoded, so that what a segment holds can
never be taken for another path.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from starlette.types import Scope

from dynlearn.errors import InvalidInput
from dynlearn_services.server.routes.route import Route

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Match(NamedTuple):
    """What a path stands for.

    Attributes:
        routes: by method; empty where no route has this path.
        parts: those of the path that vary, by name.
    """

    routes: Mapping[str, Route]
    parts: Mapping[str, str]


class Matcher:
    """Finds routes by path."""

    def __init__(self, table: Iterable[Route]):
        # Of each number of segments, the paths that have it.
        self._paths: dict[int, dict[tuple[str, ...], dict[str, Route]]] = {}
        for route in table:
            same = self._paths.setdefault(len(route.segments), {})
            same.setdefault(route.segments, {})[route.method] = route

    def match(self, scope: Scope) -> Match:
        """Return what a request's path stands for.

        Raises:
            InvalidInput: the path holds a control character.
        """
        raw = scope.get("raw_path") or quote(scope["path"]).encode()
        segments = [unquote(part) for part in raw.decode("latin-1").split("/")[1:]]
        if _CONTROL.search("".join(segments)):
            raise InvalidInput("path: expected no control characters, got one")
        for path, routes in self._paths.get(len(segments), {}).items():
            parts: dict[str, str] = {}
            for expected, given in zip(path, segments, strict=True):
                if expected.startswith("{") and given and "/" not in given:
                    parts[expected[1:-1]] = given
                elif expected != given:
                    break
            else:
                return Match(routes, parts)
        return Match({}, {})
