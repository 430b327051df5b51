import json
import logging

import httpx
import pytest

from dynlearn.config import ServeConfig
from dynlearn_services.server import running_server
from dynlearn_services.server.http.log import REQUEST_ID


def serve(arm, **changes):
    return running_server(ServeConfig(model="arm", **{"port": 0, **changes}), arm.root)


def get(url, **headers):
    return httpx.get(url, headers=headers, trust_env=False)


def test_every_answer_has_an_id(arm):
    with serve(arm) as url:
        first, second = (get(f"{url}/v2").headers[REQUEST_ID] for _ in range(2))
        assert first != second
        assert get(f"{url}/v2", **{REQUEST_ID: "mine-42"}).headers[REQUEST_ID] == "mine-42"
        assert get(f"{url}/v2", **{REQUEST_ID: "a b"}).headers[REQUEST_ID] != "a b"
        assert REQUEST_ID in get(f"{url}/nothing").headers
        assert REQUEST_ID in get(f"{url}/v2/models/arm/infer").headers


def test_the_log_holds_a_line_for_each_request(arm, caplog):
    caplog.set_level(logging.INFO, "dynlearn.requests")
    with serve(arm, log="json") as url:
        get(f"{url}/v2", **{REQUEST_ID: "mine"})
        get(f"{url}/nothing")
    lines = [json.loads(record.message) for record in caplog.records]
    assert [(line["path"], line["status"]) for line in lines] == [("/v2", 200), ("/nothing", 404)]
    assert lines[0]["request_id"] == "mine"
    assert 0 < lines[0]["seconds"] < 10
    assert lines[0]["client"] == "127.0.0.1"


def test_by_default_the_log_holds_faults_alone(arm, caplog):
    caplog.set_level(logging.INFO, "dynlearn.requests")
    with serve(arm) as url:
        get(f"{url}/v2")
        get(f"{url}/nothing")
    assert caplog.records == []


def test_a_line_of_text_is_one_line_whatever_the_caller_sends(arm, caplog):
    caplog.set_level(logging.INFO, "dynlearn.requests")
    with serve(arm, log="text") as url:
        get(f"{url}/v2/models/a%20status=200%22")
        get(f"{url}/v2")
    first, second = (record.message for record in caplog.records)
    assert 'path="/v2/models/a status=200\\""' in first
    assert first.count("status=") == 2
    assert "\n" not in first + second
    assert " path=/v2 status=200 " in second


@pytest.mark.parametrize(("proxies", "client"), [((), "127.0.0.1"), (("127.0.0.1",), "9.9.9.9")])
def test_only_a_proxy_that_is_named_says_who_the_client_is(arm, caplog, proxies, client):
    caplog.set_level(logging.INFO, "dynlearn.requests")
    with serve(arm, log="json", forwarded_allow_ips=proxies) as url:
        get(f"{url}/v2", **{"X-Forwarded-For": "9.9.9.9"})
    (line,) = (json.loads(record.message) for record in caplog.records)
    assert line["client"] == client
