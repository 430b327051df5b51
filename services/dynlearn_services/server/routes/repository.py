"""The calls about which models are served."""

import asyncio
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from dynlearn.errors import InvalidInput, describe_fault
from dynlearn_services.server.http.bodies import read_body
from dynlearn_services.server.routes.route import answer_json
from dynlearn_services.server.service import Service


class IndexRequest(BaseModel):
    """What to list of the repository."""

    model_config = ConfigDict(strict=True)

    ready: bool = False


class VersionDocument(BaseModel):
    """A version in the repository's index."""

    name: str
    version: str
    state: str
    reason: str


class IndexDocument(RootModel[list[VersionDocument]]):
    """The repository's index."""


class EmptyDocument(BaseModel):
    """That it has been done."""


async def index(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """List all versions of all models, or those in memory.

    Raises:
        InvalidInput: the body is not what it must be.
    """
    body = await read_body(request, service.config.max_body_bytes, request.state.take)
    try:
        wanted = IndexRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise InvalidInput(describe_fault(error, "body")) from error
    states = await asyncio.to_thread(service.models.index)
    listed = [
        VersionDocument(**vars(state))
        for state in states
        if state.state == "READY" or not wanted.ready
    ]
    return answer_json(IndexDocument(listed))


async def load(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Serve a model.

    Raises:
        NotFound: there is no such model.
        Unavailable: its version is damaged, or other replicas do not hear of it.
    """
    await asyncio.to_thread(service.load, parts["name"])
    return answer_json(EmptyDocument())


async def unload(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Serve a model no more.

    Raises:
        NotFound: no model of this name is served.
        Unavailable: other replicas do not hear of it.
    """
    await asyncio.to_thread(service.unload, parts["name"])
    return answer_json(EmptyDocument())
