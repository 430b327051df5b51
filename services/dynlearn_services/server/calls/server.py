"""What the server says of itself: its name, its health, its figures."""

from collections.abc import Mapping
from importlib.metadata import version as installed_version

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from dynlearn.errors import Unavailable
from dynlearn_services.server.http.answers import answer_json
from dynlearn_services.server.service import Service


class ServerMetadata(BaseModel):
    """The server as the protocol describes it."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Whether the server runs."""

    live: bool


class Ready(BaseModel):
    """Whether the server answers."""

    ready: bool


async def describe_server(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Answer with the server's name, version and extensions."""
    extensions = ["binary_tensor_data", "model_repository"]
    return answer_json(
        ServerMetadata(
            name="dynlearn", version=installed_version("dynlearn"), extensions=extensions
        )
    )


async def live(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Answer that the server runs."""
    return answer_json(Live(live=True))


async def ready(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Answer that every model answers.

    Raises:
        Unavailable: one is still warming up, or the server is ending.
    """
    if service.is_draining:
        raise Unavailable("the server is ending; ask another one")
    service.models.require_ready()
    return answer_json(Ready(ready=True))


async def metrics(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Answer with the page that Prometheus reads."""
    content, kind = service.metrics.page()
    return Response(content, headers={"Content-Type": kind})
