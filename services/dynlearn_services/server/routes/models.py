"""The calls about one model."""

import asyncio
from collections.abc import Mapping

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from dynlearn.protocol.metadata import Limits
from dynlearn_services.server.calls.rewards import task_of
from dynlearn_services.server.models.metadata import describe
from dynlearn_services.server.routes.route import answer_json
from dynlearn_services.server.service import Service


class ModelReadyDocument(BaseModel):
    """That a version of a model answers."""

    name: str
    version: str
    ready: bool


async def describe_model(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Say what a model takes and gives, and what a planner must know of it.

    Raises:
        NotFound: there is no such model or version.
        Unavailable: it is still warming up.
    """
    models, config = service.models, service.config
    loaded = await models.find_version(parts["name"], parts.get("version"))
    versions = await asyncio.to_thread(models.versions, loaded.name)
    limits = Limits(
        max_rows=config.max_rows,
        max_row_steps=config.max_row_steps,
        max_body_bytes=config.max_body_bytes,
        max_answer_bytes=config.max_answer_bytes,
    )
    task = task_of(service.tasks, loaded)
    return answer_json(describe(loaded, versions, task, limits))


async def model_ready(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Say that a version answers.

    Raises:
        NotFound: there is no such model or version.
        Unavailable: it is still warming up.
    """
    loaded = await service.models.find_version(parts["name"], parts.get("version"))
    return answer_json(ModelReadyDocument(name=loaded.name, version=loaded.version, ready=True))
