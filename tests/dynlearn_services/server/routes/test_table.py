"""Every route, asked by every role, in odd forms of its path: no role is crossed."""

import asyncio
import http.client
from dataclasses import replace
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import Response

from dynlearn.config import ServeConfig
from dynlearn_services.server import running_server
from dynlearn_services.server.app import create_app
from dynlearn_services.server.models.served_models import ServedModels
from dynlearn_services.server.routes.entry import Entry
from dynlearn_services.server.routes.table import ROUTES
from dynlearn_services.server.service import Service
from dynlearn_services.tokens import Tokens

# What lets a caller do more, one after the other; the first shows no token.
RANKS = {None: 0, "read": 1, "write": 2, "admin": 3}
EXAMPLES = {"name": "arm", "version": "1", "file": "swagger-ui.css"}


def odd_forms(path):
    """What someone may write in place of a path, percent-encoded, by what is odd."""
    head, _, last = path.rpartition("/")
    first = path[1:].split("/")[0]
    return {
        "as it is": path,
        "newline": f"{path}%0A",
        "newline before": f"/%0A{path[1:]}",
        "carriage return": f"{path}%0D",
        "null": f"{path}%00",
        "null within": f"{head}/{last[:1]}%00{last[1:]}",
        "delete": f"{path}%7F",
        "next line": f"{path}%C2%85",
        "tab": f"{path}%09",
        "bare newline": f"{path}\n",
        "space": f"{path}%20",
        "plus": f"{path}+",
        "no-break space": f"{path}%C2%A0",
        "zero-width space": f"{path}%E2%80%8B",
        "dot": f"{path}.",
        "encoded last slash": f"{head}%2F{last}",
        "encoded slashes": "/" + path[1:].replace("/", "%2f"),
        "encoded trailing slash": f"{path}%2F",
        "encoded twice": f"{head}%252F{last}",
        "letter encoded twice": f"{head}/%25{ord(last[0]):02X}{last[1:]}",
        "letter encoded": f"{head}/%{ord(last[0]):02X}{last[1:]}",
        "first letter encoded": f"/%{ord(first[0]):02x}{path[2:]}",
        "dot segment": f"/.{path}",
        "dot segment after": f"{path}/.",
        "dots": f"/nothing/..{path}",
        "dots from an open page": f"/docs-files/..{path}",
        "encoded dots": f"/docs-files/%2e%2e{path}",
        "encoded dots and slash": f"/docs-files/..%2f{path[1:]}",
        "dots after": f"{path}/..",
        "dots back": f"{path}/../{last}",
        "upper case": path.upper(),
        "title case": f"{head}/{last.title()}",
        "trailing slash": f"{path}/",
        "slash before": f"/{path}",
        "slashes within": f"{head}//{last}",
        "trailing part": f"{path}/nothing",
        "trailing open path": f"{path}/v2/health/live",
        "parameter": f"{path};role=admin",
        "encoded parameter": f"{path}%3Ba",
        "number sign": f"{path}%23",
        "question mark": f"{path}%3F",
        "query": f"{path}?/v2/health/live",
        "backslash": f"{head}\\{last}",
        "encoded backslash": f"{head}%5C{last}",
        "trailing backslash": f"{path}%5C",
        "wide letter": f"{head}/{quote(chr(ord(last[0]) + 0xFEE0))}{last[1:]}",
        "Cyrillic": path.replace("a", "%D0%B0").replace("e", "%D0%B5").replace("o", "%D0%BE"),
        "wide slash": f"{head}%EF%BC%8F{last}",
        "not UTF-8": f"{path}%FF",
        "overlong slash": f"{head}%C0%AF{last}",
        "half an escape": f"{path}%2",
        "no slash": path[1:],
    }


CASES = [
    (route, form, odd)
    for route in ROUTES
    for form, odd in odd_forms(route.path.format(**EXAMPLES)).items()
]
CONTROL_CHARACTERS = {
    "newline",
    "newline before",
    "carriage return",
    "null",
    "null within",
    "delete",
    "next line",
    "tab",
    "bare newline",
}
NO_TEXT = {"not UTF-8", "overlong slash"}


async def ask(app, method, target, secret=None, **changes):
    """Return the status of an answer and its headers, from an application in process."""
    raw, _, query = target.partition("?")
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        # As a server gives it: decoded as a whole, and as it came.
        "path": unquote(raw),
        "raw_path": raw.encode(errors="replace"),
        "query_string": query.encode(),
        "headers": [(b"authorization", f"Bearer {secret}".encode())] if secret else [],
        "client": ("127.0.0.1", 1),
        **changes,
    }
    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.fixture
def tokens(tmp_path):
    return Tokens(tmp_path / "tokens.json")


@pytest.fixture
def secrets(tokens):
    return {role: role and tokens.create(role, role) for role in RANKS}


@pytest.fixture
def service(arm, tokens, secrets):
    with Service(ServeConfig(model="arm", port=0), arm.root, tokens) as service:
        service.warm_up()
        yield service


@pytest.fixture
def ran():
    """The routes whose calls have run."""
    return []


@pytest.fixture
def entry(service, ran):
    """The server's entry, whose calls only say that they have run."""

    def spy(route):
        async def call(service, request, parts):
            ran.append(route)
            return Response()

        return replace(route, call=call)

    return Entry(None, [spy(route) for route in ROUTES], service)


@pytest.mark.parametrize("role", RANKS)
def test_no_role_is_crossed(entry, ran, secrets, role):
    async def ask_all():
        for route, form, odd in CASES:
            for method in ("GET", "HEAD", "POST", "DELETE"):
                ran.clear()
                status, headers = await ask(entry, method, odd, secrets[role])
                case = (role, method, odd, form, status)
                assert (status == 200) == bool(ran), case
                for each in ran:
                    assert RANKS[role] >= RANKS[each.role], case
                    assert each.method == ("GET" if method == "HEAD" else method), case
                if form in CONTROL_CHARACTERS or form in NO_TEXT:
                    assert status == 400, case
                elif not ran:
                    # What there is not, or not to this method, or not for this role.
                    allowed = {401} if role is None else {403, 405}
                    assert status in ({404, 405} if role == "admin" else {*allowed, 405}), case
                assert (status == 405) == (b"allow" in headers), case
                if form == "as it is" and route.method == method:
                    assert bool(ran) == (RANKS[role] >= RANKS[route.role]), case

    asyncio.run(ask_all())


PIECES = st.one_of(
    st.sampled_from(sorted({part for route in ROUTES for part in route.path.split("/")} | {"arm"})),
    st.sampled_from(
        ["/", "%2F", "%0A", "\n", "\r", "\t", "%00", "%7f", "%C2%85", "%25", ".", ".."]
    ),
    st.binary(max_size=3).map(quote),
    st.text(max_size=3),
)


@given(st.lists(PIECES, max_size=12), st.sampled_from(["GET", "HEAD", "POST"]))
@settings(
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_path_whatever_crosses_a_role(entry, ran, secrets, pieces, method):
    path = "/" + "".join(pieces).replace("?", "")
    for role in RANKS:
        ran.clear()
        status, _ = asyncio.run(ask(entry, method, path, secrets[role]))
        assert (status == 200) == bool(ran)
        assert all(RANKS[role] >= RANKS[each.role] for each in ran)
        decoded = unquote(path, errors="surrogateescape")
        if any(character < " " or "\x7f" <= character <= "\x9f" for character in decoded):
            assert (status, ran) == (400, [])


def test_which_forms_mean_the_same(entry, ran, secrets):
    """Those that HTTP holds for the same path, and no others."""
    same = set()

    async def ask_all():
        for route, form, odd in CASES:
            ran.clear()
            await ask(entry, route.method, odd, secrets["admin"])
            if ran and route.path in ("/v2/health/live", "/v2/repository/index"):
                assert [each.path for each in ran] == [route.path]
                same.add(form)

    asyncio.run(ask_all())
    assert same == {"as it is", "first letter encoded", "letter encoded", "query"}


def test_what_a_request_for_another_method_may_know(entry, secrets):
    async def statuses(method, path):
        return [(await ask(entry, method, path, secrets[role]))[0] for role in RANKS]

    unload = "/v2/repository/models/arm/unload"
    assert asyncio.run(statuses("GET", unload)) == [401, 403, 403, 405]
    assert asyncio.run(statuses("GET", "/v2/repository/index")) == [401, 405, 405, 405]
    assert asyncio.run(statuses("POST", "/v2/health/live")) == [405] * 4
    assert asyncio.run(statuses("GET", "/nothing")) == [401, 403, 403, 404]
    status, headers = asyncio.run(ask(entry, "POST", "/v2/health/live"))
    assert (status, headers[b"allow"]) == (405, b"GET, HEAD")


def test_a_path_that_came_without_its_raw_form(entry, ran, secrets):
    def run(path):
        ran.clear()
        status, _ = asyncio.run(ask(entry, "POST", path, secrets["read"], raw_path=None))
        return status, [route.path for route in ran]

    assert run("/v2/models/arm/infer") == (200, ["/v2/models/{name}/infer"])
    assert run("/v2/repository/models/arm/unload") == (403, [])
    assert run("/v2/repository/models/arm/unload%0A") == (400, [])


def test_the_roles():
    least = {}
    for route in ROUTES:
        least.setdefault(route.role, set()).add(f"{route.method} {route.path}")
    assert least[None] == {
        "GET /docs",
        "GET /docs-files/{file}",
        "GET /openapi.json",
        "GET /v2/health/live",
        "GET /v2/health/ready",
    }
    assert least["admin"] == {
        "POST /v2/repository/models/{name}/load",
        "POST /v2/repository/models/{name}/unload",
    }
    assert set(least) == {None, "read", "admin"}


@pytest.mark.parametrize("role", [None, "read", "write"])
def test_the_models_stay_whatever_a_lower_role_writes(service, secrets, monkeypatch, role):
    """The same forms, and the true calls behind them."""
    moved = []
    for name in ("load", "unload"):
        monkeypatch.setattr(ServedModels, name, lambda *given: moved.append(given))
    app = create_app(service)

    async def ask_all():
        for route, form, odd in CASES:
            if route.role == "admin":
                status, _ = await ask(app, "POST", odd, secrets[role])
                assert status >= 400, (form, odd)
        assert moved == []
        await ask(app, "POST", "/v2/repository/models/arm/unload", secrets["admin"])
        assert len(moved) == 1

    asyncio.run(ask_all())
    assert service.models.find("arm").version == "2"


def test_over_a_socket(arm, tokens, secrets):
    unload = "/v2/repository/models/arm/unload"
    with running_server(ServeConfig(model="arm", port=0), arm.root, tokens) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"))

        def status(method, path, role):
            connection.putrequest(method, path, skip_accept_encoding=True)
            if role:
                connection.putheader("Authorization", f"Bearer {secrets[role]}")
            connection.endheaders()
            answer = connection.getresponse()
            answer.read()
            return answer.status

        # http.client itself refuses what no line can hold.
        forms = {form: odd for form, odd in odd_forms(unload).items() if odd.isprintable()}
        for form, odd in forms.items():
            if " " not in odd:
                assert status("POST", odd, "read") in (400, 401, 403), form
        assert status("POST", f"{unload}%0A", "read") == 400
        assert status("POST", f"{unload}%0A", "admin") == 400
        assert status("GET", "/v2/models/arm", "read") == 200
        assert status("HEAD", "/v2/health/live", None) == 200
        assert status("HEAD", "/docs-files/swagger-ui.css", None) == 200
        assert status("GET", "/docs-files/nothing.css", None) == 404
        assert status("GET", "/docs-files/..%2f__init__.py", None) == 401
        assert status("POST", unload, "admin") == 200
        assert status("GET", "/v2/models/arm", "read") == 404
        connection.close()
