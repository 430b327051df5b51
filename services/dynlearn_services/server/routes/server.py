"""The calls about the server itself."""

import asyncio
from collections.abc import Mapping
from importlib.metadata import version

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from dynlearn.errors import Unavailable
from dynlearn_services.server.routes.route import answer_json
from dynlearn_services.server.service import Service

VERSION = version("dynlearn")


class ServerDocument(BaseModel):
    """What the server is, and which parts of the protocol it knows."""

    name: str = "dynlearn"
    version: str = VERSION
    extensions: tuple[str, ...] = ("binary_tensor_data", "model_repository")


class LiveDocument(BaseModel):
    """That the server answers."""

    live: bool


class ReadyDocument(BaseModel):
    """That every model has a version that answers."""

    ready: bool


async def describe_server(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Say what the server is."""
    return answer_json(ServerDocument())


async def live(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Say that the server answers."""
    return answer_json(LiveDocument(live=True))


async def ready(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Say that every model answers.

    Raises:
        Unavailable: one is still warming up, the server is ending, or what runs models has died.
    """
    if service.is_draining:
        raise Unavailable("the server is ending; ask another one")
    service.inference.require_alive()
    service.models.require_ready()
    return answer_json(ReadyDocument(ready=True))


async def metrics(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Return the page that Prometheus reads, of all replicas together.

    Raises:
        Unavailable: they do not say what they have counted.
    """
    content, kind = await asyncio.to_thread(service.page)
    return Response(content, headers={"Content-Type": kind})
