import asyncio
import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import orjson
import pytest

from dynlearn.config import ServeConfig
from dynlearn.protocol.messages import HEADER_LENGTH
from dynlearn_services.server import running_server
from dynlearn_services.server.calls.messages import decode, dumps


def tensor(name, values, **changes):
    document = {"name": name, "datatype": "FP32", "shape": list(np.shape(values))}
    return document | {"data": np.asarray(values).tolist()} | changes


OBSERVATION, ACTION = tensor("observation", np.zeros((2, 5))), tensor("action", np.zeros((2, 2)))
BINARY = {"name": "observation", "datatype": "FP32", "shape": [1, 5]}
GOOD = {"inputs": [OBSERVATION, ACTION]}
MAX_ROWS = 1000

# (body, header length, status, what the error names)
BAD_REQUESTS = {
    "no body": (b"", None, 400, "Invalid JSON"),
    "deep JSON": (b"[" * 50_000, None, 400, "Invalid JSON"),
    "header zero": (GOOD, "0", 400, HEADER_LENGTH),
    "header negative": (GOOD, "-5", 400, HEADER_LENGTH),
    "header beyond the body": (GOOD, "99999", 400, HEADER_LENGTH),
    "header no number": (GOOD, "many", 400, HEADER_LENGTH),
    "header short of the JSON": (GOOD, "20", 400, "Invalid JSON"),
    "header missing": (
        {"inputs": [BINARY | {"parameters": {"binary_data_size": 20}}]},
        None,
        400,
        "observation: expected 20 binary bytes, got 0",
    ),
    "trailing bytes": (json.dumps(GOOD).encode() + b"xx", str(len(json.dumps(GOOD))), 400, "body"),
    "input missing": ({"inputs": [OBSERVATION]}, None, 400, "inputs: expected observation and"),
    "input unknown": (
        {"inputs": [OBSERVATION, ACTION, tensor("goal", [1.0])]},
        None,
        400,
        "inputs: expected observation and action, and member and context or not, got observation, "
        "action, goal",
    ),
    "member unknown": (
        {"inputs": [OBSERVATION, ACTION, tensor("member", [0, 3], datatype="INT64")]},
        None,
        400,
        "member: expected integers 0 to 2, got 0 to 3",
    ),
    "member of another length": (
        {"inputs": [OBSERVATION, ACTION, tensor("member", [0, 1, 1], datatype="INT64")]},
        None,
        400,
        "member: expected shape [2], got [3]",
    ),
    "output unknown": (
        GOOD | {"outputs": [{"name": "next_observation_men"}]},
        None,
        400,
        "did you mean next_observation_mean",
    ),
    "datatype": (
        {"inputs": [OBSERVATION, tensor("action", np.zeros((2, 2), int), datatype="INT64")]},
        None,
        400,
        "action: expected datatype FP32 or FP64",
    ),
    "vector in place of rows": (
        {"inputs": [tensor("observation", np.zeros(5)), ACTION]},
        None,
        400,
        "observation: expected shape",
    ),
    "columns": (
        {"inputs": [OBSERVATION, tensor("action", np.zeros((2, 3)))]},
        None,
        400,
        "action: expected shape [rows, 2], got [2, 3]",
    ),
    "rows differ": (
        {"inputs": [OBSERVATION, tensor("action", np.zeros((3, 2)))]},
        None,
        400,
        "got 3 actions and 2 observations",
    ),
    "NaN": (
        {"inputs": [OBSERVATION, tensor("action", np.full((2, 2), np.nan))]},
        None,
        400,
        "action: expected finite values",
    ),
    "beyond FP32": (
        {"inputs": [OBSERVATION, tensor("action", np.full((2, 2), 1e300), datatype="FP64")]},
        None,
        400,
        "action: expected values within the range of FP32",
    ),
    "claims of rows": (
        {"inputs": [OBSERVATION | {"shape": [10**9, 5]}, ACTION]},
        None,
        400,
        "observation: expected 5000000000 numbers",
    ),
    "rows above the cap": (
        {"inputs": [tensor("observation", np.zeros((MAX_ROWS + 1, 5), int)), ACTION]},
        None,
        413,
        "observation: expected at most 1000 rows, got 1001",
    ),
}


@pytest.fixture(scope="module")
def url(walking):
    with running_server(ServeConfig(model="arm", port=0, max_rows=MAX_ROWS), walking.root) as url:
        yield url


def ask(http, url, body, name="arm", **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(f"{url}/v2/models/{name}/infer", content=content, **options)


@pytest.mark.parametrize(
    ("body", "length", "status", "names"), BAD_REQUESTS.values(), ids=BAD_REQUESTS
)
def test_bad_requests(http, url, body, length, status, names):
    headers = {} if length is None else {HEADER_LENGTH: length}
    answer = ask(http, url, body, headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert names in answer.json()["error"]


@pytest.mark.parametrize("count", [0, 1, 2**15, 2**15 + 1, 100_000])
def test_long_tensors_are_written_a_part_at_a_time_to_the_same_json(count):
    values = np.arange(count, dtype=np.float32) / 3
    document = {"model_name": "arm", "outputs": [{"name": "a", "data": values}, {"name": "b"}]}
    assert dumps(document) == orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def test_long_json_is_read_elsewhere_while_nobody_looks_for_garbage():
    rows = json.dumps({"inputs": [tensor("observation", np.zeros((30_000, 2)))]}).encode()
    short = json.dumps(GOOD).encode()
    threads = []

    def note(phase, _):
        threads.append(threading.current_thread().name)

    async def read(body, length):
        request = await decode(body, length, 2**22, reader)
        return request.inputs["observation"].shape

    with ThreadPoolExecutor(1, "elsewhere") as reader:
        assert asyncio.run(read(short, None)) == (2, 5)
        assert not reader._threads
        gc.callbacks.append(note)
        try:
            assert asyncio.run(read(rows, None)) == (30_000, 2)
        finally:
            gc.callbacks.remove(note)
        assert len(reader._threads) == 1
    assert not any(name.startswith("elsewhere") for name in threads)
    assert gc.isenabled()
