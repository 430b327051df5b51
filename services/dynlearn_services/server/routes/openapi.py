"""The OpenAPI document of the table of routes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dynlearn.protocol.documents import RequestDocument
from dynlearn.protocol.messages import HEADER_LENGTH
from dynlearn_services.server.http.answers import ErrorDocument
from dynlearn_services.server.routes.examples import examples
from dynlearn_services.server.routes.route import Route, TensorBody
from dynlearn_services.server.routes.table import TABLE
from dynlearn_services.server.service import Service

Mode = Literal["validation", "serialization"]
Refer = Callable[[type[BaseModel], Mode], dict[str, Any]]

_BINARY = {
    "schema": {"type": "string", "format": "binary"},
    "x-layout": f"the JSON, its length in the header {HEADER_LENGTH}, then the tensors",
}


def describe(service: Service, version: str) -> dict[str, Any]:
    """Return the OpenAPI document of a server.

    Args:
        service: what is served; its first model gives the examples.
        version: of dynlearn.
    """
    shown = [route for route in TABLE if route.tag]
    schemas, definitions = models_json_schema(
        sorted(_documents(shown), key=str), ref_template="#/components/schemas/{model}"
    )
    found = examples(service)
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        operation = _operation(route, lambda kind, mode: schemas[kind, mode], found)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "dynlearn",
            "summary": "Dynamics models in the Open Inference Protocol v2",
            "version": version,
        },
        "paths": paths,
        "components": {"schemas": definitions["$defs"]},
    }
    if service.tokens is not None:
        scheme = {"type": "http", "scheme": "bearer"}
        document["components"]["securitySchemes"] = {"token": scheme}
        document["security"] = [{"token": []}]
    return document


def _documents(routes: Iterable[Route]) -> set[tuple[type[BaseModel], Mode]]:
    documents: set[tuple[type[BaseModel], Mode]] = {(ErrorDocument, "serialization")}
    for route in routes:
        answer = route.answer[0] if isinstance(route.answer, list) else route.answer
        if not isinstance(answer, str):
            documents.add((answer, "serialization"))
        if isinstance(route.body, TensorBody):
            documents |= {(RequestDocument, "validation"), (route.body.parameters, "validation")}
        elif route.body is not None:
            documents.add((route.body, "validation"))
    return documents


def _operation(route: Route, refer: Refer, found: Mapping[str, Any]) -> dict[str, Any]:
    assert route.call is not None
    name = route.call.__name__ + ("_version" if "version" in route.names else "")
    title, _, more = route.description.partition("\n\n")
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.call.__name__.replace("_", " ").capitalize(),
        "operationId": name,
        "responses": {
            "200": {"description": "the answer", "content": _answer(route, refer)},
            "default": {
                "description": "any error",
                "content": _json(refer(ErrorDocument, "serialization")),
            },
        },
    }
    if route.description:
        operation["description"] = f"{title}\n\n{more}".strip()
    if route.names:
        operation["parameters"] = [_parameter(each, found) for each in route.names]
    if isinstance(route.body, TensorBody):
        shown = {"example": found[route.body.example]} if route.body.example in found else {}
        json = _json(refer(RequestDocument, "validation"), **shown)
        operation["requestBody"] = {"required": True, "content": json | _binary()}
        operation["x-parameters"] = refer(route.body.parameters, "validation")
    elif route.body is not None:
        operation["requestBody"] = {"content": _json(refer(route.body, "validation"))}
    return operation


def _answer(route: Route, refer: Refer) -> dict[str, Any]:
    if isinstance(route.answer, str):
        return {route.answer: {"schema": {"type": "string"}}}
    if isinstance(route.answer, list):
        items = refer(route.answer[0], "serialization")
        return _json({"type": "array", "items": items})
    answer = _json(refer(route.answer, "serialization"))
    return answer | _binary() if isinstance(route.body, TensorBody) else answer


def _json(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **more}}


def _binary() -> dict[str, Any]:
    return {"application/octet-stream": _BINARY}


def _parameter(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    example = {"example": found[name]} if name in found else {}
    schema = {"type": "string"}
    return {"name": name, "in": "path", "required": True, "schema": schema, **example}
