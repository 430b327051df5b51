"""Route: what a caller may ask for, of whom it is asked, and what answers."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from dynlearn_services.server.service import Service
from dynlearn_services.tokens import Role

# Of the service, a request, and the parts of its path by their names in the template.
Call = Callable[[Service, Request, Mapping[str, str]], Awaitable[Response]]

_PART = re.compile(r"{(\w+)}")


@dataclass(frozen=True)
class Tensors:
    """A body that is JSON, or JSON with tensors after it.

    Attributes:
        document: the JSON.
        parameters: what its key of that name may hold.
    """

    document: type[BaseModel]
    parameters: type[BaseModel] | None = None


@dataclass(frozen=True)
class Route:
    """One row of the table.

    Attributes:
        method: of HTTP; HEAD goes where GET does.
        path: whole segments, those in braces standing for any one.
        role: the least that will do; None where everyone may ask.
        call: what answers.
        summary: its title on the API's page.
        answer: what it gives: JSON, tensors, or something of a media type.
        body: what it reads.
        tag: its group on the API's page; None where it is not there.
        description: the text on the API's page.
    """

    method: Literal["GET", "POST"]
    path: str
    role: Role | None
    call: Call
    summary: str
    answer: type[BaseModel] | Tensors | str
    body: type[BaseModel] | Tensors | None = None
    tag: str | None = None
    description: str = ""

    @property
    def parts(self) -> list[str]:
        """The names of the segments that stand for any."""
        return _PART.findall(self.path)


def answer_json(document: BaseModel) -> Response:
    """Return a document as JSON: pydantic's own, which knows infinite bounds."""
    return Response(document.model_dump_json(), media_type="application/json")
