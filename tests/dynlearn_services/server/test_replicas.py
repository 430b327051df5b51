"""Several copies of the server behind Ray Serve: one door, one set of models, one count."""

import json
import time

import httpx
import pytest

from dynlearn.config import ServeConfig
from dynlearn.errors import InvalidInput, Unavailable
from dynlearn_services.server.replicas import running_replicas, share
from dynlearn_services.tokens import Tokens

ROWS = {
    "inputs": [
        {"name": "observation", "datatype": "FP32", "shape": [1, 5], "data": [0] * 5},
        {"name": "action", "datatype": "FP32", "shape": [1, 2], "data": [0] * 2},
    ]
}


@pytest.mark.parametrize(
    ("device", "replicas", "gpus", "expected"),
    [
        ("cpu", 3, 2, None),
        ("auto", 3, 0, None),
        ("auto", 1, 2, 1.0),
        ("auto", 2, 2, 1.0),
        ("cuda", 3, 2, 0.5),
        ("cuda", 5, 2, 0.3333),
        ("cuda", 7, 1, 0.1428),
    ],
)
def test_each_has_an_equal_share_of_one_gpu_of_the_cluster(device, replicas, gpus, expected):
    found = share(device, replicas, gpus)
    assert found == ({"num_cpus": 1} if expected is None else {"num_cpus": 1, "num_gpus": expected})
    if expected is not None:
        # All of them find room at once, each on one GPU.
        assert int(1 / expected) * gpus >= replicas


def test_gpus_that_the_cluster_has_not():
    with pytest.raises(Unavailable, match="expected GPUs in the Ray cluster, got none"):
        share("cuda", 2, 0)


def test_other_addresses_need_tokens(walking, tmp_path):
    for tokens in (None, Tokens(tmp_path / "tokens.json")):
        with (
            pytest.raises(InvalidInput, match="dynlearn tokens create"),
            running_replicas(
                ServeConfig(model="arm", port=0, replicas=2, host="0.0.0.0"), walking.root, tokens
            ),
        ):
            pass


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return Tokens(tmp_path_factory.mktemp("home") / "tokens.json")


@pytest.fixture(scope="module")
def secrets(tokens):
    return {role: tokens.create(role, role) for role in ("read", "admin")}


@pytest.fixture(scope="module")
def url(walking, tokens, secrets):
    config = ServeConfig(model="arm,walk", port=0, replicas=2, host="0.0.0.0", root_path="/robots")
    with running_replicas(config, walking.root, tokens) as url:
        yield url.replace("0.0.0.0", "127.0.0.1")


@pytest.fixture
def ask(url, secrets):
    """Ask on a connection of its own, so that any replica may answer."""

    def ask(path, role=None, method="GET", secret=None, **options):
        secret = secret or secrets.get(role)
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        return httpx.request(method, url + path, headers=headers, trust_env=False, **options)

    return ask


def settles(answers, expected, asks=20):
    """Whether every one of many answers comes to be what is expected; a second where it is calm."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        time.sleep(0.25)
        if {answers() for _ in range(asks)} == {expected}:
            return True
    return False


def predictions(page):
    """Return how many predictions of `arm` a page of metrics counts."""
    lines = [
        line
        for line in page.splitlines()
        if line.startswith("dynlearn_inference_requests_total{") and 'model="arm"' in line
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines if 'outcome="ok"' in line)


def told(page):
    """Return the names of the replicas that a page of metrics tells of."""
    return {
        line.partition('replica="')[2].partition('"')[0]
        for line in page.splitlines()
        if line.startswith("process_start_time_seconds{")
    }


def test_all_replicas_ask_for_tokens(ask, tokens):
    for _ in range(20):
        assert ask("/v2/models/arm").status_code == 401
        assert ask("/v2/models/arm", "read").status_code == 200
        refused = ask("/v2/repository/models/arm/unload", "read", "POST")
        assert refused.status_code == 403
    assert ask("/v2/health/live").status_code == 200
    assert ask("/v2/health/live", method="HEAD").status_code == 200
    assert ask("/robots/v2/health/live").status_code == 200
    assert "/robots/openapi.json" in ask("/robots/docs").text
    assert ask("/robots/v2/models/arm").status_code == 401
    secret = tokens.create("guest", "read")
    assert settles(lambda: ask("/v2", secret=secret).status_code, 200)
    tokens.revoke("guest")
    assert settles(lambda: ask("/v2", secret=secret).status_code, 401)


def test_what_is_counted_is_the_sum(ask):
    page = ask("/metrics", "read").text
    before, replicas = predictions(page), told(page)
    assert len(replicas) == 2
    for _ in range(40):
        answer = ask("/v2/models/arm/infer", "read", "POST", content=json.dumps(ROWS))
        assert answer.status_code == 200
    assert settles(lambda: predictions(ask("/metrics", "read").text), before + 40, asks=10)
    assert told(ask("/metrics", "read").text) == replicas


def test_an_unloaded_model_is_served_by_none(ask):
    assert ask("/v2/repository/models/arm/unload", "admin", "POST").status_code == 200
    assert settles(lambda: ask("/v2/models/arm", "read").status_code, 404, asks=40)
    assert {ask("/v2/models/walk", "read").status_code for _ in range(10)} == {200}
    assert ask("/v2/repository/models/arm/load", "admin", "POST").status_code == 200
    assert settles(lambda: ask("/v2/models/arm", "read").status_code, 200, asks=40)
