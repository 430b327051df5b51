"""Answers in JSON, as pydantic writes it: FastAPI's own turns infinite bounds into null."""

from pydantic import BaseModel, TypeAdapter
from starlette.responses import Response


class ErrorDocument(BaseModel):
    """What every error looks like."""

    error: str


class Nothing(BaseModel):
    """An answer that has nothing to say but that it was done."""


def answer_json(content: BaseModel) -> Response:
    """Return a document as an answer."""
    return Response(content.model_dump_json(), media_type="application/json")


def answer_list(content: list[BaseModel]) -> Response:
    """Return some documents as an answer."""
    body = TypeAdapter(list[BaseModel]).dump_json(content, serialize_as_any=True)
    return Response(body, media_type="application/json")
