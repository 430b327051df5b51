"""The OpenAPI document, made from the table of routes."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dynlearn.protocol.messages import HEADER_LENGTH
from dynlearn_services.server.routes.examples import examples_of
from dynlearn_services.server.routes.route import Route, Tensors
from dynlearn_services.server.service import Service

_Mode = Literal["validation", "serialization"]

_REFERENCE = "#/components/schemas/{model}"


class ErrorDocument(BaseModel):
    """What every error looks like."""

    error: str


def describe_routes(app: FastAPI, routes: Iterable[Route], service: Service) -> dict[str, Any]:
    """Return the OpenAPI document of an application.

    Args:
        app: whose title it has.
        routes: those with a tag are described.
        service: what is served; its first model gives the examples.

    Raises:
        Unavailable: the tokens cannot be read.
    """
    shown = [route for route in routes if route.tag is not None]
    examples = examples_of(service)
    asks_for_tokens = service.access.asks_for_tokens()
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=[])
    if service.config.root_path:
        document["servers"] = [{"url": service.config.root_path}]
    document["components"] = components = {"schemas": _schemas(shown)}
    for route in shown:
        # Nothing changes what is served because someone tries what the page shows.
        operation = _operation(route, {} if route.role == "admin" else examples)
        if asks_for_tokens and route.role is None:
            operation["security"] = []
        document["paths"].setdefault(route.path, {})[route.method.lower()] = operation
    if asks_for_tokens:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _schemas(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the schemas of all that is read and given, by the names of the models."""
    kinds: dict[tuple[type[BaseModel], _Mode], None] = {(ErrorDocument, "serialization"): None}
    for route in routes:
        for content in (route.body, route.answer):
            if isinstance(content, Tensors):
                # The same tensors come and go, so that one schema is for both.
                for each in (content.document, content.parameters):
                    if each is not None:
                        kinds[each, "validation"] = None
            elif isinstance(content, type):
                mode: _Mode = "validation" if content is route.body else "serialization"
                kinds[content, mode] = None
    _, schemas = models_json_schema(list(kinds), ref_template=_REFERENCE)
    found: dict[str, Any] = schemas["$defs"]
    return dict(sorted(found.items()))


def _operation(route: Route, examples: Mapping[str, Any]) -> dict[str, Any]:
    name = route.summary.lower().replace(" ", "_")
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.summary,
        "operationId": f"{name}_version" if "version" in route.parts else name,
        "responses": {
            "200": {"description": "the answer", **_content(route.answer)},
            "default": {"description": "any error", **_content(ErrorDocument)},
        },
    }
    if route.description:
        operation["description"] = route.description
    if route.role is not None:
        operation["x-role"] = route.role
    if route.parts:
        operation["parameters"] = [
            {
                "name": part,
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                **_example(part, examples),
            }
            for part in route.parts
        ]
    if route.body is not None:
        operation["requestBody"] = {
            "required": isinstance(route.body, Tensors),
            **_content(route.body, _example(name, examples)),
        }
    if isinstance(route.body, Tensors) and route.body.parameters is not None:
        operation["x-parameters"] = _reference(route.body.parameters)
    return operation


def _content(
    content: type[BaseModel] | Tensors | str, example: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a body is, by its media type."""
    if isinstance(content, str):
        return {"content": {content: {"schema": {"type": "string"}}}}
    if isinstance(content, Tensors):
        binary = {
            "schema": {"type": "string", "format": "binary"},
            "x-layout": f"the JSON, its length in the header {HEADER_LENGTH}, then the tensors",
        }
        json = {"schema": _reference(content.document), **(example or {})}
        return {"content": {"application/json": json, "application/octet-stream": binary}}
    return {"content": {"application/json": {"schema": _reference(content), **(example or {})}}}


def _reference(document: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=document.__name__)}


def _example(name: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    return {"example": examples[name]} if name in examples else {}
