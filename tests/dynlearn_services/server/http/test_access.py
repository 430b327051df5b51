import httpx
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException

from dynlearn.config import ServeConfig
from dynlearn.errors import InvalidInput
from dynlearn_services.server import running_server
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
