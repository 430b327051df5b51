"""What a served model is, and whether it answers."""

import asyncio
from collections.abc import Mapping

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from dynlearn.protocol.metadata import Limits
from dynlearn_services.server.calls.rewards import known_rewards
from dynlearn_services.server.http.answers import answer_json
from dynlearn_services.server.models.metadata import describe
from dynlearn_services.server.service import Service


class ModelReady(BaseModel):
    """Whether a model answers, and in which version."""

    name: str
    version: str
    ready: bool


async def describe_model(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Answer with what a model takes and gives, and what a planner must know of it.

    Raises:
        NotFound: there is no such model or version.
        Unavailable: the model is still warming up.
    """
    model = await service.models.find_version(parts["name"], parts.get("version"))
    versions = await asyncio.to_thread(service.models.versions, model.name)
    config = service.config
    limits = Limits(
        max_rows=config.max_rows,
        max_body_bytes=config.max_body_bytes,
        max_answer_bytes=config.max_answer_bytes,
    )
    rewards = known_rewards(service.tasks, model.model.spec)
    return answer_json(describe(model, versions, rewards, limits))


async def model_ready(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
    """Answer that a model answers.

    Raises:
        NotFound: there is no such model or version.
        Unavailable: the model is still warming up.
    """
    model = await service.models.find_version(parts["name"], parts.get("version"))
    return answer_json(ModelReady(name=model.name, version=model.version, ready=True))
