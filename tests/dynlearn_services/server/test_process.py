import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from dynlearn.config import ServeConfig
from dynlearn.errors import CorruptData, InvalidInput, NotFound
from dynlearn.registry import Registry
from dynlearn.spaces import DiscreteSpace
from dynlearn_services.server import running_server


def config(name="arm", **changes):
    return ServeConfig(model=name, **{"port": 0} | changes)


def ask(http, url, body, name="arm", **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(f"{url}/v2/models/{name}/infer", content=content, **options)


GOOD = {
    "inputs": [
        {"name": "observation", "datatype": "FP32", "shape": [1, 5], "data": [0] * 5},
        {"name": "action", "datatype": "FP32", "shape": [1, 2], "data": [0] * 2},
    ]
}


def test_port_in_use(walking):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InvalidInput, match=f"expected a free port .*127.0.0.1:{port} "),
            running_server(config("arm", port=port), walking.root),
        ):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "no host", "a" * 100, ""])
def test_hosts_to_refuse(walking, host):
    with (
        pytest.raises(InvalidInput) as caught,
        running_server(config("arm", host=host), walking.root),
    ):
        pass
    assert repr(host) in str(caught.value) or f"{host}:0" in str(caught.value)


def test_models_to_refuse(walking, tmp_path, make_model):
    with pytest.raises(NotFound, match="arm"), running_server(config("arn"), walking.root):
        pass
    truncated = Registry(tmp_path).publish(
        "arm", lambda folder: make_model(DiscreteSpace(n=2), (0,)).save(folder)
    )
    weights = truncated.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CorruptData, match="safetensors"), running_server(config("arm"), tmp_path):
        pass


def test_a_named_version_and_the_address_of_localhost(walking, http):
    with running_server(config("arm/1", host="localhost"), walking.root) as url:
        assert ask(http, url, GOOD).json()["model_version"] == "1"


SERVE = """
import sys
from pathlib import Path
from dynlearn.config import ServeConfig
from dynlearn_services.server import serve
serve(ServeConfig(model="arm", port=0), Path(sys.argv[1]), None, lambda url: print(url, flush=True))
"""


def test_signals_end_the_process_with_success(walking, http):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SERVE, walking.root],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    for process, number in zip(processes, (signal.SIGTERM, signal.SIGINT), strict=True):
        with process:
            url = process.stdout.readline().strip()
            # An idle connection that is kept open must not hold the server.
            assert ask(http, url, GOOD).status_code == 200
            process.send_signal(number)
            assert process.wait(timeout=20) == 0
            assert process.stderr.read() == ""
