"""MLServer as a process, with packages of its own: it asks for an older FastAPI than ours."""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_SECONDS_TO_START = 120


@contextmanager
def running_mlserver(packages: Path, model: Path, name: str) -> Iterator[str]:
    """Serve a model folder under a name, and yield the server's address.

    Args:
        packages: where ``pip install --target`` has put MLServer.
        model: the model's folder.
        name: of the model.

    Raises:
        RuntimeError: it does not start; with the end of its log.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        port, grpc_port = one.getsockname()[1], other.getsockname()[1]
    # Inference in the process that has the socket, as ours, and not in a worker beside it.
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": grpc_port,
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
    }
    of_model = {
        "name": name,
        "implementation": "benchmarks.rivals.mlserver_model.Dynamics",
        "parameters": {"uri": str(model)},
    }
    path = os.pathsep.join((str(packages.resolve()), str(Path(__file__).parents[1])))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        Path(folder, "settings.json").write_text(json.dumps(settings))
        Path(folder, "model-settings.json").write_text(json.dumps(of_model))
        command = [sys.executable, "-c", "from mlserver.cli import main; main()", "start", folder]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            if not _is_ready(process, port, name):
                log.seek(0)
                raise RuntimeError(f"expected MLServer to start, got {log.read()[-2000:]}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _is_ready(process: subprocess.Popen[bytes], port: int, name: str) -> bool:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            try:
                connection.request("GET", f"/v2/models/{name}/ready")
                if connection.getresponse().status == 200:
                    return True
            except OSError:
                pass
        time.sleep(0.2)
    return False
