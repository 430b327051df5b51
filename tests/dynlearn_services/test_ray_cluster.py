import logging
import os
import socket
import subprocess
import sys
import time

import pytest

from dynlearn.errors import InvalidInput, Unavailable
from dynlearn_services.ray_cluster import fetch, ray_cluster, require_nodes

SCRIPT = """
from dynlearn.errors import Unavailable
from dynlearn_services.ray_cluster import ray_cluster
try:
    with ray_cluster(1):
        pass
except Unavailable as error:
    print(error)
"""


def test_an_address_where_nothing_listens_is_said_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"RAY_ADDRESS": f"127.0.0.1:{port}"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    expected = f"expected a Ray cluster at RAY_ADDRESS 127.0.0.1:{port}, got "
    assert result.stdout.startswith(expected)
    assert (result.stdout.count("\n"), result.stderr) == (1, "")


def test_a_local_cluster_listens_on_this_machine_alone(ray_session: None) -> None:
    import ray

    (node,) = ray.nodes()
    assert node["NodeManagerAddress"] == "127.0.0.1"
    port = node["NodeManagerPort"]
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    listening = subprocess.run(
        [sys.executable, "-c", f"import socket; socket.create_server(('127.0.0.2', {port}))"]
    )
    assert listening.returncode == 0, "another address of this machine is taken too"


def test_what_ray_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def time_out(**options: object) -> None:
        # As of a raylet that is killed while it starts.
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", time_out)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(Unavailable, match="RAY_ADDRESS auto, got The current node"), ray_cluster(1):
        pass
    monkeypatch.setattr(ray, "init", lambda **options: None)
    with (
        pytest.raises(Unavailable, match=r"that works, got RaySystemError: .*no room") as caught,
        ray_cluster(1),
    ):
        raise ray.exceptions.RaySystemError("no room")
    assert "\n" not in str(caught.value)


def test_a_cluster_without_a_node_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    for is_alive in (True, False):
        monkeypatch.setattr(ray, "nodes", lambda alive=is_alive: [{"Alive": alive}])
        if is_alive:
            require_nodes()
    with pytest.raises(Unavailable, match="got one without a node"):
        require_nodes()


def _fail(error: Exception) -> None:
    raise error


class _Failing:
    def fail(self) -> None:
        raise ArithmeticError("of a run that has ended")

    def play(self) -> None:
        """Come to an end after what was asked for before."""


def test_errors_that_nobody_asks_for_any_more_are_not_shown(
    ray_session: None, caplog: pytest.LogCaptureFixture
) -> None:
    import ray

    log = logging.getLogger("ray._private.worker")
    log.addHandler(caplog.handler)
    worker = ray.remote(_Failing).remote()
    left = worker.fail.remote()
    ray.get(worker.play.remote())
    del left
    time.sleep(0.5)
    log.removeHandler(caplog.handler)
    assert caplog.text == ""


def test_a_workers_own_errors_come_out_as_they_are(ray_session: None) -> None:
    import ray

    work = ray.remote(_fail)
    with pytest.raises(InvalidInput, match=r"^of this project$") as caught:
        fetch(work.remote(InvalidInput("of this project")))
    assert caught.value.__cause__ is None
    with pytest.raises(ray.exceptions.RayTaskError, match="of another"):
        fetch(work.remote(ArithmeticError("of another")))
    assert fetch(ray.put(3)) == 3
