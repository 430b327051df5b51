"""The routes whose bodies are tensors, answered without a framework between.

A planner asks them in every step. What FastAPI does for a route costs more than a small prediction.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dynlearn.errors import DynlearnError
from dynlearn.protocol.documents import RequestDocument, ResponseDocument
from dynlearn.protocol.messages import HEADER_LENGTH, Message
from dynlearn_services.server.calls.parameters import PredictParameters, RolloutParameters
from dynlearn_services.server.calls.predictions import predict
from dynlearn_services.server.calls.rollouts import roll_out
from dynlearn_services.server.http.bodies import compress, read_body, wanted_coding
from dynlearn_services.server.http.errors import answer_error
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.service import Service

Answer = Callable[[Service, LoadedModel, bytes, str | None], Awaitable[Message]]

# An answer that takes longer than this is given up when its caller hangs up.
_PATIENCE_SECONDS = 0.05

logger = logging.getLogger(__name__)


class _Kind(NamedTuple):
    prefix: str
    answer: Answer
    parameters: type[BaseModel]
    description: str


_KINDS = {
    "infer": _Kind(
        "/v2",
        predict,
        PredictParameters,
        "Predict next observations.\n\nInputs: `observation` [N, O] and `action` [N, A] (integers "
        "[N] where actions are discrete); optionally `member`, integers [N]: which member alone "
        "answers each row, at a fraction of the work; and `context` [N, G], the goal of a learned "
        "reward. Outputs: those of the model's metadata, in JSON or as binary tensors.",
    ),
    "rollout": _Kind(
        "/v1",
        roll_out,
        RolloutParameters,
        "Imagine what action sequences lead to, and judge them.\n\nInputs: `observations` [S, O], "
        "`actions` [S, P, H, A] (integers [S, P, H] where actions are discrete), and `context` "
        "[S, G], such as the goal, where the reward needs one. Outputs: `returns` and `return_std` "
        "[S, P], which need a reward, `trajectory_mean` and `trajectory_variance` [S, P, H, O], "
        "`trajectory_covariance` [S, P, H, O, O], `particles` [S, P, N, H, O]. A return that is "
        "not finite is given as the lowest float32.",
    ),
}
_PATH = re.compile(r"(/v[12])/models/([^/]+)(?:/versions/([^/]+))?/(infer|rollout)")

DOCUMENTS: tuple[type[BaseModel], ...] = (
    RequestDocument,
    ResponseDocument,
    *(kind.parameters for kind in _KINDS.values()),
)


class TensorRoutes:
    """An ASGI application that answers its own routes and passes on all others."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        match = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        kind = _KINDS.get(match[4]) if match else None
        if match is None or kind is None or kind.prefix != match[1]:
            await self._app(scope, receive, send)
            return
        try:
            if scope["method"] != "POST":
                raise HTTPException(405, headers={"Allow": "POST"})
            request = Request(scope, receive)
            response = await self._answer(kind, match[4], match[2], match[3], request)
        except (DynlearnError, HTTPException) as error:
            response = answer_error(scope["method"], scope["path"], error)
        except Exception as error:
            logger.exception("%s %s", scope["method"], scope["path"])
            response = answer_error(scope["method"], scope["path"], error)
        await response(scope, receive, send)

    async def _answer(
        self, kind: _Kind, name: str, model_name: str, version: str | None, request: Request
    ) -> Response:
        began = time.perf_counter()
        model = await self._service.models.find_version(model_name, version)
        outcome = "500"
        try:
            with self._service.budget.share() as take:
                body = await read_body(request, self._service.config.max_body_bytes, take)
                length = request.headers.get(HEADER_LENGTH)
                message = await _while_connected(
                    kind.answer(self._service, model, body, length), request
                )
            outcome = "ok"
        except DynlearnError as error:
            outcome = str(error.http_status)
            raise
        except HTTPException as error:
            outcome = str(error.status_code)
            raise
        finally:
            seconds = time.perf_counter() - began
            self._service.metrics.observe_request(model.name, model.version, name, outcome, seconds)
        return await _respond(message, request)


async def _while_connected(answer: Awaitable[Message], request: Request) -> Message:
    """Return an answer, or give it up when the caller hangs up."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    watching: list[asyncio.Task[None]] = []
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    # Most answers are there before anybody need watch.
    timer = loop.call_later(_PATIENCE_SECONDS, lambda: watching.append(loop.create_task(watch())))
    try:
        return await answer
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        # Nobody reads it, but the log does.
        raise HTTPException(499, "expected the caller to wait, got a hang-up") from None
    finally:
        timer.cancel()
        for watcher in watching:
            watcher.cancel()


async def _respond(message: Message, request: Request) -> Response:
    body, headers = message.body, message.headers
    coding = wanted_coding(request.headers.get("Accept-Encoding", ""))
    if coding is not None:
        body, packed = await compress(body, coding)
        headers |= packed
    return Response(body, headers=headers)


def describe_routes(reference: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    """Return the routes as the OpenAPI page has them.

    Args:
        reference: where a model's schema is, with ``{model}`` for its name.
        examples: of the path's parts and of the bodies, by their names.
    """

    def example(name: str) -> dict[str, Any]:
        return {"example": examples[name]} if name in examples else {}

    def refer(document: type[BaseModel]) -> dict[str, str]:
        return {"$ref": reference.format(model=document.__name__)}

    def bodies(document: type[BaseModel], **example: Any) -> dict[str, Any]:
        binary = {
            "schema": {"type": "string", "format": "binary"},
            "x-layout": f"the JSON, its length in the header {HEADER_LENGTH}, then the tensors",
        }
        json = {"schema": refer(document), **example}
        return {"application/json": json, "application/octet-stream": binary}

    def parameter(name: str) -> dict[str, Any]:
        schema = {"type": "string"}
        return {"name": name, "in": "path", "required": True, "schema": schema, **example(name)}

    paths = {}
    for name, kind in _KINDS.items():
        error = {"application/json": {"schema": {"$ref": reference.format(model="ErrorDocument")}}}
        for versions, names in (("", ["name"]), ("/versions/{version}", ["name", "version"])):
            path = f"{kind.prefix}/models/{{name}}{versions}/{name}"
            paths[path] = {
                "post": {
                    "tags": ["models"],
                    "summary": name.capitalize(),
                    "description": kind.description,
                    "operationId": f"{name}_version" if versions else name,
                    "parameters": [parameter(each) for each in names],
                    "requestBody": {
                        "required": True,
                        "content": bodies(RequestDocument, **example(name)),
                    },
                    "x-parameters": refer(kind.parameters),
                    "responses": {
                        "200": {"description": "the outputs", "content": bodies(ResponseDocument)},
                        "default": {"description": "any error", "content": error},
                    },
                }
            }
    return paths
