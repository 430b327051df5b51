import re

import httpx
import pytest
from pydantic import ValidationError

from dynlearn.client import DynamicsClient
from dynlearn.config import ServeConfig
from dynlearn.errors import InvalidInput
from dynlearn_services.server import running_server
from dynlearn_services.server.routes.root import Root
from dynlearn_services.server.routes.table import ROUTES

ROOT = "/robots/dynlearn"


@pytest.fixture(scope="module")
def url(walking):
    config = ServeConfig(model="arm", port=0, root_path=ROOT)
    with running_server(config, walking.root) as url:
        yield url


def test_paths_with_and_without_the_root():
    root = Root(ROOT, ROUTES)
    assert root.within(["", "robots", "dynlearn", "v2"]) == ["", "v2"]
    for same in (["", "v2"], ["", "robots", "v2"], ["", "x", "robots", "dynlearn"], ["", ""]):
        assert root.within(same) == same
    assert Root("", ROUTES).within(["", "v2"]) == ["", "v2"]


@pytest.mark.parametrize("prefix", ["", ROOT])
def test_the_page_names_files_that_the_proxy_shows(url, http, prefix):
    page = http.get(f"{url}{prefix}/docs").text
    named = re.findall(r"""["'](/[^"']*(?:css|js|png|json))["']""", page)
    assert len(named) == 4
    for path in named:
        assert path.startswith(f"{ROOT}/")
        # A proxy that passes the root on, and one that takes it off.
        for asked in (path, path.removeprefix(ROOT)):
            assert http.get(url + asked).status_code == 200
    document = http.get(f"{url}{prefix}/openapi.json").json()
    assert document["servers"] == [{"url": ROOT}]


def test_a_client_behind_a_proxy(url):
    with DynamicsClient(f"{url}{ROOT}/", "arm") as client:
        assert client.spec.name == "arm"


@pytest.mark.parametrize("prefix", ["", ROOT])
@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/metrics", "/docs"])
def test_head_is_get_without_a_body(url, prefix, path):
    answer = httpx.head(url + prefix + path, trust_env=False)
    assert answer.status_code == 200
    assert answer.content == b""


@pytest.mark.parametrize("path", ["dynlearn", "/dynlearn/", "/a b", "//", "/a\n", "/%2F"])
def test_what_is_no_root(path):
    with pytest.raises(ValidationError):
        ServeConfig(model="arm", root_path=path)


@pytest.mark.parametrize("path", ["/v2", "/v1/x", "/docs", "/metrics"])
def test_a_root_beside_the_servers_own_paths(walking, path):
    config = ServeConfig(model="arm", port=0, root_path=path)
    with (
        pytest.raises(InvalidInput, match="root_path: expected a path beside"),
        running_server(config, walking.root),
    ):
        pass
