"""The HTTP application: which path asks for what."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.metadata import version as installed_version
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException

from dynlearn.errors import DynlearnError, InvalidInput, Unavailable, describe_fault
from dynlearn.protocol.metadata import Limits, ModelMetadata
from dynlearn_services.server.calls.rewards import known_rewards
from dynlearn_services.server.http.access import PAGE_FILES, Guard
from dynlearn_services.server.http.bodies import read_body
from dynlearn_services.server.http.errors import handle_error
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.metadata import describe
from dynlearn_services.server.routes.openapi import REFERENCE, complete
from dynlearn_services.server.routes.tensors import TensorRoutes
from dynlearn_services.server.service import Service


class ErrorDocument(BaseModel):
    """What every error looks like."""

    error: str


def create_app(service: Service) -> FastAPI:
    """Return the application over a service."""
    # The page's files too: many a robot's network has no way to where FastAPI would have them from.
    app = FastAPIOffline(
        static_url=PAGE_FILES,
        title="dynlearn",
        summary="Dynamics models in the Open Inference Protocol v2",
        version=installed_version("dynlearn"),
        redirect_slashes=False,
        redoc_url=None,
        responses={"default": {"description": "any error", "model": ErrorDocument}},
    )
    for kind in (DynlearnError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, handle_error)
    app.add_middleware(TensorRoutes, service=service)
    app.add_middleware(Guard, service=service)
    app.include_router(_server_routes(service, app.version))
    app.include_router(_repository_routes(service), prefix="/v2/repository")

    async def find(name: str) -> LoadedModel:
        return service.models.find(name)

    find_version = service.models.find_version

    for finder, path in (
        (find, "/models/{name}"),
        (find_version, "/models/{name}/versions/{version}"),
    ):
        app.include_router(_model_routes(finder, service), prefix=f"/v2{path}")
    app.openapi = complete(app, service, IndexRequest)  # type: ignore[method-assign]
    return app


def _server_routes(service: Service, version: str) -> APIRouter:
    routes = APIRouter(tags=["server"])

    @routes.get("/v2")
    async def describe_server() -> dict[str, Any]:
        extensions = ["binary_tensor_data", "model_repository"]
        return {"name": "dynlearn", "version": version, "extensions": extensions}

    @routes.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @routes.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        if service.is_draining:
            raise Unavailable("the server is ending; ask another one")
        service.models.require_ready()
        return {"ready": True}

    @routes.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        content, kind = service.metrics.page()
        return Response(content, headers={"Content-Type": kind})

    return routes


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


def _repository_routes(service: Service) -> APIRouter:
    routes = APIRouter(tags=["repository"])

    @routes.post("/index", openapi_extra=_json_body(IndexRequest))
    async def index(request: Request) -> list[VersionDocument]:
        """List all versions of all models, or those in memory where `ready` is true."""
        with service.budget.share() as take:
            body = await read_body(request, service.config.max_body_bytes, take)
        wanted = _parse(IndexRequest, body or b"{}")
        states = await asyncio.to_thread(service.models.index)
        return [
            VersionDocument(**vars(state))
            for state in states
            if state.state == "READY" or not wanted.ready
        ]

    @routes.post("/models/{name}/load")
    async def load(name: str) -> dict[str, Any]:
        """Serve a model's champion."""
        await asyncio.to_thread(service.models.load, name)
        return {}

    @routes.post("/models/{name}/unload")
    async def unload(name: str) -> dict[str, Any]:
        """Serve a model no more."""
        await asyncio.to_thread(service.models.unload, name)
        return {}

    return routes


def _model_routes(find: Callable[..., Awaitable[LoadedModel]], service: Service) -> APIRouter:
    """Return the routes of one model, which ``find`` takes from the path."""
    routes = APIRouter(tags=["models"])
    Model = Annotated[LoadedModel, Depends(find)]

    @routes.get("", response_model=ModelMetadata)
    async def describe_model(model: Model) -> Response:
        versions = await asyncio.to_thread(service.models.versions, model.name)
        # Pydantic's own JSON: FastAPI's turns the infinite bounds of actions into null.
        rewards = known_rewards(service.tasks, model.model.spec)
        limits = Limits(
            max_rows=service.config.max_rows,
            max_body_bytes=service.config.max_body_bytes,
            max_answer_bytes=service.config.max_answer_bytes,
        )
        content = describe(model, versions, rewards, limits).model_dump_json()
        return Response(content, media_type="application/json")

    @routes.get("/ready")
    async def model_ready(model: Model) -> dict[str, Any]:
        return {"name": model.name, "version": model.version, "ready": True}

    return routes


def _json_body(document: type[BaseModel]) -> dict[str, Any]:
    reference = {"$ref": REFERENCE.format(model=document.__name__)}
    return {"requestBody": {"content": {"application/json": {"schema": reference}}}}


_Kind = TypeVar("_Kind", bound=BaseModel)


def _parse(kind: type[_Kind], body: bytes) -> _Kind:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise InvalidInput(describe_fault(error, "body")) from error
