"""The calls whose bodies are tensors.

A planner asks them in every step. What a framework does for a route costs more than a small
prediction, so there is none between.
"""

import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dynlearn.errors import DynlearnError
from dynlearn.protocol.messages import HEADER_LENGTH, Message
from dynlearn_services.server.calls.predictions import predict
from dynlearn_services.server.calls.rollouts import roll_out
from dynlearn_services.server.http.bodies import compress, read_body, wanted_coding
from dynlearn_services.server.http.connection import while_connected
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.service import Service

Compute = Callable[[Service, LoadedModel, bytes, str | None], Awaitable[Message]]


async def infer(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Predict next observations."""
    return await _answer("infer", predict, service, request, parts)


async def rollout(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Imagine what action sequences lead to."""
    return await _answer("rollout", roll_out, service, request, parts)


async def _answer(
    kind: str, compute: Compute, service: Service, request: Request, parts: Mapping[str, str]
) -> Response:
    began = time.perf_counter()
    model = await service.models.find_version(parts["name"], parts.get("version"))
    outcome = "500"
    try:
        # Until the answer has been sent.
        take = request.state.take
        body = await read_body(request, service.config.max_body_bytes, take)
        length, size = request.headers.get(HEADER_LENGTH), len(body)
        message = await while_connected(compute(service, model, body, length), request)
        del body
        take(len(message.body) - size)
        outcome = "ok"
    except DynlearnError as error:
        outcome = str(error.http_status)
        raise
    except HTTPException as error:
        outcome = str(error.status_code)
        raise
    finally:
        seconds = time.perf_counter() - began
        service.metrics.observe_request(model.name, model.version, kind, outcome, seconds)
    return await _respond(message, request)


async def _respond(message: Message, request: Request) -> Response:
    body, headers = message.body, message.headers
    coding = wanted_coding(request.headers.get("Accept-Encoding", ""))
    if coding is not None:
        body, packed = await compress(body, coding)
        headers |= packed
    return Response(body, headers=headers)
