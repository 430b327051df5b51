import re

import pytest

from dynlearn.config import ServeConfig
from dynlearn_services.server import running_server


def config(name="arm", **changes):
    return ServeConfig(model=name, **{"port": 0} | changes)


@pytest.fixture(scope="module")
def url(walking):
    with running_server(config("arm"), walking.root) as url:
        yield url


def test_the_openapi_page_describes_the_bodies(http, url):
    page = http.get(f"{url}/openapi.json").json()
    infer = page["paths"]["/v2/models/{name}/versions/{version}/infer"]["post"]
    assert [parameter["name"] for parameter in infer["parameters"]] == ["name", "version"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    references = set(_references(page))
    assert "#/components/schemas/RequestDocument" in references
    for reference in references:
        assert reference.rpartition("/")[2] in page["components"]["schemas"]
    assert "HTTPValidationError" not in str(page)


def test_the_page_needs_nothing_from_elsewhere(http, url):
    page = http.get(f"{url}/docs").text
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(addresses) == 3
    for address in addresses:
        answer = http.get(url + address)
        assert answer.status_code == 200
        assert len(answer.content) > 1000


def _references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _references(child)


def test_the_page_says_which_role_is_needed(http, url):
    paths = http.get(f"{url}/openapi.json").json()["paths"]
    assert paths["/v2/repository/models/{name}/unload"]["post"]["x-role"] == "admin"
    assert paths["/v2/models/{name}/infer"]["post"]["x-role"] == "read"
    assert "x-role" not in paths["/v2/health/live"]["get"]
    # Who only tries what the page shows unloads nothing.
    assert "example" not in str(paths["/v2/repository/models/{name}/unload"])
