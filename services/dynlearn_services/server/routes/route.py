"""Route: one thing that can be asked of the server."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from dynlearn_services.server.service import Service
from dynlearn_services.tokens import Role

Call = Callable[[Service, Request, Mapping[str, str]], Awaitable[Response]]
"""Answers a request, given the parts of its path by name."""


@dataclass(frozen=True)
class TensorBody:
    """Tensors in JSON or after it, both ways.

    Attributes:
        parameters: what may be said beside them.
        example: which of the served model's examples can be sent as it stands.
    """

    parameters: type[BaseModel]
    example: str


@dataclass(frozen=True)
class Route:
    """A method and a path, who may ask it, what comes and goes, and the call that answers.

    Attributes:
        method: of HTTP; HEAD is answered where GET is.
        path: with ``{name}`` for each part that varies, which is one segment.
        role: the least that is needed where there are tokens; None is open to everyone.
        call: what answers; None leaves it to the page of the API.
        answer: what comes back: a document, a list of them, or bytes of a media type.
        body: what is to be sent.
        tag: under which it stands on the page; empty leaves it out.
        description: the first paragraph is the title.
    """

    method: Literal["GET", "POST"]
    path: str
    role: Role | None
    call: Call | None
    answer: type[BaseModel] | list[type[BaseModel]] | str
    body: type[BaseModel] | TensorBody | None = None
    tag: str = ""
    description: str = ""

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's parts."""
        return tuple(self.path.split("/")[1:])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts that vary."""
        return tuple(part[1:-1] for part in self.segments if part.startswith("{"))
