"""The HTTP application: routes that decode, call and encode, and one form for every error."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from dynlearn.config import ServeConfig
from dynlearn.errors import (
    DynlearnError,
    InvalidInput,
    NotFound,
    TooLarge,
    Unavailable,
    nearest,
)
from dynlearn.protocol import OUTPUTS, ModelMetadata, RequestDocument, ResponseDocument
from dynlearn.wire import HEADER_LENGTH, InferResponse, Message, decode_request, encode_response
from dynlearn_services.server.loaded_model import LoadedModel

DEFAULT_OUTPUTS = (OUTPUTS["mean"], OUTPUTS["variance"], OUTPUTS["covariance"])

_dumps = partial(orjson.dumps, option=orjson.OPT_SERIALIZE_NUMPY)


class ErrorDocument(BaseModel):
    """What every error looks like."""

    error: str


def create_app(models: Mapping[str, LoadedModel], config: ServeConfig) -> FastAPI:
    """Return the application that serves ``models`` by name, within the limits of ``config``."""
    app = _App(
        title="dynlearn",
        summary="Dynamics models in the Open Inference Protocol v2",
        version=installed_version("dynlearn"),
        redirect_slashes=False,
        redoc_url=None,
        responses={"default": {"description": "any error", "model": ErrorDocument}},
    )
    for kind in (DynlearnError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer_error)

    async def find(name: str) -> LoadedModel:
        if name not in models:
            raise NotFound(f"expected a served model, got {name!r}; {nearest(name, models)}")
        return models[name]

    async def find_version(name: str, version: str) -> LoadedModel:
        model = await find(name)
        if version != model.version:
            raise NotFound(
                f"expected version {model.version} of model {name}, the one served, got {version!r}"
            )
        return model

    @app.get("/v2")
    async def describe_server() -> dict[str, Any]:
        return {"name": "dynlearn", "version": app.version, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        for model in models.values():
            _require_ready(model)
        return {"ready": True}

    app.include_router(_model_routes(find, config), prefix="/v2/models/{name}")
    app.include_router(
        _model_routes(find_version, config), prefix="/v2/models/{name}/versions/{version}"
    )
    return app


def _model_routes(find: Callable[..., Awaitable[LoadedModel]], config: ServeConfig) -> APIRouter:
    """Return the routes of one model, which ``find`` takes from the path."""
    routes = APIRouter()
    Model = Annotated[LoadedModel, Depends(find)]

    @routes.get("", response_model=ModelMetadata)
    async def describe_model(model: Model) -> Response:
        # Pydantic's own JSON: FastAPI's turns the infinite bounds of actions into null.
        return Response(model.metadata().model_dump_json(), media_type="application/json")

    @routes.get("/ready")
    async def model_ready(model: Model) -> dict[str, Any]:
        _require_ready(model)
        return {"name": model.name, "version": model.version, "ready": True}

    @routes.post("/infer", response_class=Response, **_INFER_BODIES)
    async def infer(model: Model, request: Request) -> Response:
        """Predict next observations.

        Inputs: `observation` [N, O] and `action` [N, A] (integers [N] where actions are discrete);
        optionally `member`, integers [N]: which member alone answers each row, at a fraction of
        the work. Outputs: those of the model's metadata, in JSON or as binary tensors.
        """
        body = await _read_body(request, config.max_body_bytes)
        header_length = request.headers.get(HEADER_LENGTH)
        message = await model.run(_infer, model, body, header_length, config.max_rows)
        return Response(message.body, headers=message.headers)

    return routes


def _infer(model: LoadedModel, body: bytes, header_length: str | None, max_rows: int) -> Message:
    request = decode_request(body, header_length)
    for name, values in request.inputs.items():
        if len(values) > max_rows:
            raise TooLarge(f"{name}: expected at most {max_rows} rows, got {len(values)}")
    binary = request.outputs or dict.fromkeys(DEFAULT_OUTPUTS, request.binary)
    outputs = model.compute(request.inputs, binary)
    response = InferResponse(model.name, model.version, outputs, request.id)
    return encode_response(response, {name for name in binary if binary[name]}, _dumps)


def _require_ready(model: LoadedModel) -> None:
    if not model.ready:
        raise Unavailable(f"model {model.name} is warming up; ask again in a moment")


async def _read_body(request: Request, limit: int) -> bytes:
    """Return the body, read only as far as the limit."""
    claimed = request.headers.get("Content-Length", "")
    if claimed.isdecimal() and int(claimed) > limit:
        raise TooLarge(f"body: expected at most {limit} bytes, got {claimed}")
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise TooLarge(f"body: expected at most {limit} bytes, got more")
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise InvalidInput(f"body: expected all of it, got {size} bytes and a hang-up") from error
    return b"".join(chunks)


async def _answer_error(request: Request, error: Exception) -> JSONResponse:
    """Turn any exception into the error that the protocol's clients read."""
    status, headers = 500, None
    message = "expected an answer, got a fault of the server; its log holds the cause"
    if isinstance(error, DynlearnError):
        status, message = error.http_status, str(error)
    elif isinstance(error, HTTPException):
        status, headers = error.status_code, error.headers
        message = f"{error.detail}: {request.method} {request.url.path}; see /openapi.json"
    elif isinstance(error, RequestValidationError):
        status, message = 400, "expected a request as described in /openapi.json"
    return JSONResponse({"error": message}, status, headers)


_REFERENCE = "#/components/schemas/{model}"
_BINARY = {
    "schema": {"type": "string", "format": "binary"},
    "x-layout": f"the JSON, its length in the header {HEADER_LENGTH}, then the binary tensors",
}


def _bodies(document: type[BaseModel]) -> dict[str, Any]:
    reference = {"$ref": _REFERENCE.format(model=document.__name__)}
    return {"application/json": {"schema": reference}, "application/octet-stream": _BINARY}


_INFER_BODIES: dict[str, Any] = {
    "responses": {200: {"description": "the outputs", "content": _bodies(ResponseDocument)}},
    "openapi_extra": {"requestBody": {"required": True, "content": _bodies(RequestDocument)}},
}


class _App(FastAPI):
    """FastAPI, with the bodies that the routes read and write by themselves described."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        _, schemas = models_json_schema(
            [(RequestDocument, "validation"), (ResponseDocument, "validation")],
            ref_template=_REFERENCE,
        )
        document["components"]["schemas"] |= schemas["$defs"]
        return document
