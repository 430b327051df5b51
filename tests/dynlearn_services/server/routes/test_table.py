"""Every route, every role and many odd forms of its path, made from the table of routes itself."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from dynlearn.config import ServeConfig
from dynlearn.registry import Registry
from dynlearn_services.server.app import create_app
from dynlearn_services.server.routes import router
from dynlearn_services.server.routes.route import Route
from dynlearn_services.server.routes.table import TABLE
from dynlearn_services.server.service import Service
from dynlearn_services.tokens import ROLES, Role, Tokens

Called = list[tuple[str, str]]
"""The method and the path's template of each route whose call has run."""

VALUES = {"name": "arm", "version": "2", "file": "swagger-ui.css"}

# What becomes of a path of the table, by a word for it.
ODD_FORMS = {
    "as it is": lambda path: path,
    "newline at the end": lambda path: f"{path}%0A",
    "return at the end": lambda path: f"{path}%0D",
    "null at the end": lambda path: f"{path}%00",
    "delete at the end": lambda path: f"{path}%7F",
    "next line at the end": lambda path: f"{path}%C2%85",
    "newline in the middle": lambda path: path[:-2] + "%0A" + path[-2:],
    "slash at the end": lambda path: f"{path}/",
    "encoded slash at the end": lambda path: f"{path}%2F",
    "twice encoded slash": lambda path: f"{path}%252F",
    "doubled slash": lambda path: path.replace("/", "//"),
    "slash encoded inside": lambda path: path[:1] + path[1:].replace("/", "%2F"),
    "backslash": lambda path: path[:1] + path[1:].replace("/", "%5C"),
    "dot": lambda path: f"{path}/.",
    "dot before": lambda path: f"/.{path}",
    "two dots": lambda path: f"{path}/x/..",
    "encoded dots": lambda path: f"{path}/x/%2E%2E",
    "dots before": lambda path: f"/v2/..{path}",
    "encoded climb in a part": lambda path: f"/docs-files/%2E%2E%2F{path[1:]}",
    "upper case": lambda path: path.upper(),
    "first letter encoded": lambda path: f"/%{ord(path[1]):02X}{path[2:]}",
    "all letters encoded": lambda path: "/".join(
        "".join(f"%{ord(c):02x}" for c in part) for part in path.split("/")
    ),
    "parameter": lambda path: f"{path};x=1",
    "trailing part": lambda path: f"{path}/more",
    "trailing dot": lambda path: f"{path}.",
    "trailing space": lambda path: f"{path}%20",
    "full-width letter": lambda path: path[:-1] + "%EF%BD%81",
    "bad percent": lambda path: f"{path}%",
    "bad UTF-8": lambda path: f"{path}%FF",
    "query": lambda path: f"{path}?x=/v2/health/live",
    "host in the path": lambda path: f"//health/live{path}",
}


@pytest.fixture(scope="module")
def called() -> Called:
    return []


@pytest.fixture(scope="module")
def service(make_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("home")
    Registry(root / "models").publish("arm", make_model().save)
    tokens = Tokens(root / "tokens.json")
    tokens.create("first", "admin")
    with Service(ServeConfig(model="arm"), root / "models", tokens) as service:
        yield service


@pytest.fixture(scope="module")
def secrets(service: Service) -> dict[Role | None, str]:
    assert service.tokens is not None
    return {None: "", **{role: service.tokens.create(role, role) for role in ROLES}}


@pytest.fixture(scope="module")
def app(service: Service, called: Called) -> Iterator[ASGIApp]:
    """The application, whose calls are only written down."""

    def written(route: Route) -> Route:
        async def call(service: Service, request: Request, parts: Mapping[str, str]) -> Response:
            called.append((route.method, route.path))
            return Response("called")

        return replace(route, call=call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(router, "TABLE", tuple(map(written, TABLE)))
        app = create_app(service)
        app.build_middleware_stack()
        # The stack is made at the first request.
        ask(app, "GET", "/v2/health/live", "")
        yield app


def ask(app: ASGIApp, method: str, target: str, secret: str) -> tuple[int, bytes]:
    """Ask as a server does that has read a request line; return the status and the body."""
    raw_path, _, query = target.partition("?")
    headers = [(b"authorization", f"Bearer {secret}".encode())] if secret else []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def may(role: Role | None, least: Role | None) -> bool:
    return least is None or (role is not None and ROLES.index(role) >= ROLES.index(least))


def path_of(route: Route) -> str:
    return route.path.format(**VALUES)


@pytest.mark.parametrize("form", ODD_FORMS)
def test_no_form_of_a_path_crosses_a_role(
    app: ASGIApp, secrets: dict[Role | None, str], called: Called, form: str
) -> None:
    for route in TABLE:
        target = ODD_FORMS[form](path_of(route))
        for role, secret in secrets.items():
            called.clear()
            status, body = ask(app, route.method, target, secret)
            for method, path in called:
                (ran,) = (one for one in TABLE if (one.method, one.path) == (method, path))
                assert may(role, ran.role), f"{role} got {method} {path} by {target}"
            # Either the call of some route ran, or the answer is a refusal that tells nothing.
            assert (status == 200) == bool(called)
            if not called:
                assert status in (400, 401, 403, 404, 405)
                assert body.startswith(b'{"error":')
                assert status != 404 or role == "admin", target


@pytest.mark.parametrize("form", ["as it is", "query", "first letter encoded"])
def test_a_path_as_it_stands_is_for_whoever_has_the_role(
    app: ASGIApp, secrets: dict[Role | None, str], called: Called, form: str
) -> None:
    for route in TABLE:
        for role, secret in secrets.items():
            called.clear()
            status, _ = ask(app, route.method, ODD_FORMS[form](path_of(route)), secret)
            if may(role, route.role):
                assert (status, called) == (200, [(route.method, route.path)])
            else:
                assert (status, called) == (401 if role is None else 403, [])


@pytest.mark.parametrize("character", ["%00", "%0A", "%0D", "%1F", "%7F", "%C2%85"])
def test_control_characters_are_refused_whoever_asks(
    app: ASGIApp, secrets: dict[Role | None, str], character: str
) -> None:
    target = f"/v2/repository/models/arm/unload{character}"
    assert {ask(app, "POST", target, secret)[0] for secret in secrets.values()} == {400}


def test_what_is_not_in_the_table_is_told_to_admins_alone(
    app: ASGIApp, secrets: dict[Role | None, str]
) -> None:
    found = {role: ask(app, "GET", "/nothing", secret)[0] for role, secret in secrets.items()}
    assert found == {None: 401, "read": 403, "write": 403, "admin": 404}


def test_another_method_needs_the_least_role_of_the_path(
    app: ASGIApp, secrets: dict[Role | None, str]
) -> None:
    for path, expected in (
        ("/v2/models/arm/infer", [401, 405, 405, 405]),
        ("/v2/repository/models/arm/unload", [401, 403, 403, 405]),
    ):
        assert [ask(app, "GET", path, secret)[0] for secret in secrets.values()] == expected
    assert ask(app, "DELETE", "/v2/health/live", "")[0] == 405


def test_head_is_answered_where_get_is(app: ASGIApp, secrets: dict[Role | None, str]) -> None:
    assert ask(app, "HEAD", "/v2/health/live", "") == (200, b"")
    assert ask(app, "HEAD", "/v2/models/arm", "")[0] == 401
    assert ask(app, "HEAD", "/v2/models/arm", secrets["read"]) == (200, b"")
    assert ask(app, "HEAD", "/v2/models/arm/infer", secrets["read"])[0] == 405


def test_no_two_routes_share_a_method_and_a_path() -> None:
    assert len({(route.method, route.path) for route in TABLE}) == len(TABLE)


def test_all_that_changes_what_is_served_is_for_admins() -> None:
    changing = [route for route in TABLE if route.path.endswith(("/load", "/unload"))]
    assert [route.role for route in changing] == ["admin", "admin"]
    open_to_all = {route.path.split("/")[1] for route in TABLE if route.role is None}
    assert open_to_all == {"v2", "docs", "docs-files", "openapi.json"}
    live = [route.path for route in TABLE if route.role is None and route.path.startswith("/v2")]
    assert live == ["/v2/health/live", "/v2/health/ready"]
