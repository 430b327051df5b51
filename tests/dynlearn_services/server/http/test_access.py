import time

import httpx
import pytest
import tritonclient.http
from starlette.datastructures import Headers
from tritonclient.utils import InferenceServerException

from dynlearn.config import ServeConfig
from dynlearn.errors import Forbidden, InvalidInput
from dynlearn_services.server import running_server
from dynlearn_services.server.http.access import Access
from dynlearn_services.tokens import Tokens


@pytest.fixture
def tokens(tmp_path):
    return Tokens(tmp_path / "tokens.json")


def serve(arm, tokens=None, **changes):
    return running_server(ServeConfig(model="arm", **{"port": 0, **changes}), arm.root, tokens)


def get(url, token="", method="GET", **headers):
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return httpx.request(method, url, headers=headers, trust_env=False)


def test_roles(arm, tokens):
    reader, admin = tokens.create("planner", "read"), tokens.create("boss", "admin")
    with serve(arm, tokens) as url:
        page = ("/docs", "/docs-files/swagger-ui.css", "/openapi.json")
        for path in ("/v2/health/live", "/v2/health/ready", *page):
            assert get(url + path).status_code == 200
        document = get(f"{url}/openapi.json")
        assert document.json()["security"] == [{"token": []}]
        # What is served is not for everyone.
        assert '"example"' not in document.text
        for path in ("/v2", "/v2/models/arm", "/metrics", "/nothing", "/docs-files"):
            answer = get(url + path)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert list(answer.json()) == ["error"]
        assert get(f"{url}/v2/models/arm/infer", "wrong", "POST").status_code == 401
        assert get(f"{url}/v2/models/arm", reader).status_code == 200
        assert get(f"{url}/v2/models/arm/infer", reader, "POST").status_code == 400
        unload = f"{url}/v2/repository/models/arm/unload"
        assert get(unload, reader, "POST").status_code == 403
        assert get(f"{url}/v2/models/arm", reader).status_code == 200
        assert get(unload, admin, "POST").status_code == 200
        assert get(f"{url}/v2/models/arm", reader).status_code == 404


def test_the_protocols_client_with_a_token(arm, tokens):
    secret = tokens.create("planner", "read")
    with (
        serve(arm, tokens) as url,
        tritonclient.http.InferenceServerClient(url.removeprefix("http://")) as client,
    ):
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="Bearer") as caught:
            client.get_model_metadata("arm")
        assert caught.value.status() == "401"
        headers = {"Authorization": f"Bearer {secret}"}
        assert client.get_model_metadata("arm", headers=headers)["name"] == "arm"


def test_other_addresses_need_tokens(arm, tokens):
    with pytest.raises(InvalidInput, match="dynlearn tokens create"), serve(arm, host="0.0.0.0"):
        pass
    with (
        pytest.raises(InvalidInput, match="dynlearn tokens create"),
        serve(arm, tokens, host="0.0.0.0"),
    ):
        pass
    secret = tokens.create("planner", "read")
    with serve(arm, tokens, host="0.0.0.0") as url:
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert get(f"{url}/v2").status_code == 401
        assert get(f"{url}/v2", secret).status_code == 200


def test_no_other_site_may_ask_from_a_browser(arm):
    with serve(arm) as url:
        answer = get(f"{url}/v2", Origin="http://elsewhere.example")
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_tokens_made_while_a_server_runs_are_asked_for(arm, tokens):
    with serve(arm, tokens) as url:
        assert get(f"{url}/v2").status_code == 200
        assert "security" not in get(f"{url}/openapi.json").json()
        secret = tokens.create("planner", "read")
        time.sleep(1)
        assert get(f"{url}/v2").status_code == 401
        assert get(f"{url}/v2", secret).status_code == 200
        assert get(f"{url}/openapi.json").json()["security"] == [{"token": []}]
        tokens.revoke("planner")
        time.sleep(1)
        # Nobody opens a door by taking the last key away.
        assert get(f"{url}/v2", secret).status_code == 401
        assert get(f"{url}/v2").status_code == 401


@pytest.mark.parametrize("content", ["{", '{"tokens": 1}', None])
def test_tokens_that_cannot_be_read_are_the_servers_own_business(
    arm, tokens, content, caplog, monkeypatch
):
    monkeypatch.setattr("dynlearn_services.tokens._LOOK_EVERY", 0.0)
    secret = tokens.create("planner", "read")
    with serve(arm, tokens) as url:
        assert get(f"{url}/v2", secret).status_code == 200
        tokens.path.unlink()
        if content is None:
            tokens.path.mkdir()
        else:
            tokens.path.write_text(content)
        for token in ("", secret):
            answer = get(f"{url}/v2", token)
            assert answer.status_code == 503
            assert list(answer.json()) == ["error"]
            assert "tokens.json" not in answer.text
        assert get(f"{url}/v2/health/live").status_code == 200
    told = [line for line in caplog.messages if str(tokens.path) in line]
    assert len(told) == 1


OWN = ("127.0.0.1", "127.0.0.1:1", "localhost:8000", "LocalHost", "[::1]:8000", "127.1.2.3")
FOREIGN = ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example")
ODD = ("", "@localhost", "localhost@evil.example", "localhost:80:80", "[::1", "localhost/x", "::1")


@pytest.mark.parametrize("host", [*OWN, "robot.local:8000", "ROBOT.local."])
def test_hosts_that_mean_this_machine(host):
    access = Access(None, ["robot.local"])
    assert access.require(Headers({"Host": host}), "admin") == ""


@pytest.mark.parametrize("host", [*FOREIGN, *ODD, "192.168.0.1", "0.0.0.0", "robot.local.example"])
def test_hosts_that_lead_here_from_elsewhere(host):
    access = Access(None, ["robot.local"])
    for role in (None, "read", "admin"):
        with pytest.raises(Forbidden, match="--allowed-hosts"):
            access.require(Headers({"Host": host}), role)
    with pytest.raises(Forbidden):
        access.require(Headers({}), "read")
    twice = Headers(raw=[(b"host", b"localhost"), (b"host", host.encode())])
    with pytest.raises(Forbidden):
        access.require(twice, "read")


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:8000",
        "null",
        "file://",
        "http://localhost:3000",
        "http://127.0.0.1:8000@evil.example",
        "chrome-extension://abc",
    ],
)
def test_pages_of_other_sites_may_not_ask(origin):
    headers = Headers({"Host": "localhost:8000", "Origin": origin})
    for role in ("read", "admin"):
        with pytest.raises(Forbidden, match="Origin"):
            Access(None).require(headers, role)


def test_pages_of_this_server_may_ask():
    own = Headers({"Host": "localhost:8000", "Origin": "http://localhost:8000"})
    named = Headers({"Host": "127.0.0.1:8000", "Origin": "https://robots.example"})
    assert Access(None).require(own, "admin") == ""
    assert Access(None, ["robots.example"]).require(named, "admin") == ""


def test_a_form_changes_nothing(arm):
    with serve(arm) as url:
        unload = f"{url}/v2/repository/models/arm/unload"
        forms = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; x=y")
        for kind in forms:
            answer = get(unload, method="POST", **{"Content-Type": kind})
            assert answer.status_code == 400
            assert "expected application/json" in answer.json()["error"]
        for foreign in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            answer = get(unload, method="POST", **foreign)
            assert answer.status_code == 403
        assert get(f"{url}/v2/models/arm").status_code == 200
        json = {"Content-Type": "application/json; charset=utf-8"}
        assert get(unload, method="POST", **json).status_code == 200


def test_the_protocols_client_loads_and_unloads(arm):
    """It sends no Content-Type, to `infer` as little as to these."""
    with (
        serve(arm) as url,
        tritonclient.http.InferenceServerClient(url.removeprefix("http://")) as client,
    ):
        client.unload_model("arm")
        assert not client.is_model_ready("arm")
        client.load_model("arm")
        assert client.is_model_ready("arm")


def test_with_tokens_the_servers_name_is_nobodys_business(arm, tokens):
    secret = tokens.create("planner", "read")
    with serve(arm, tokens) as url:
        assert get(f"{url}/v2", secret, Host="robots.example").status_code == 200
