"""A real server among planners: versions that change, signals, and callers that misbehave."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from dynlearn.client import AsyncDynamicsClient, DynamicsClient
from dynlearn.errors import DynlearnError
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.registry import Registry
from dynlearn.spaces import BoxSpace, ObservationSpace

CALLERS, SWAPS, SECONDS = 16, 20, 12.0
RNG = np.random.default_rng(0)
OBSERVATION = RNG.normal(size=(64, 4)).astype("f4")
ACTION = RNG.uniform(-1, 1, (64, 1)).astype("f4")
PLANS = RNG.uniform(-1, 1, (1, 20, 5, 1)).astype("f4")


def make_model(seed: int) -> DynamicsModel:
    spec = ModelSpec(
        observation_space=ObservationSpace(observation=BoxSpace(low=(-9,) * 4, high=(9,) * 4)),
        action_space=BoxSpace(low=(-1,), high=(1,)),
        observation_columns=(0, 1, 2, 3),
        target_columns=(0, 1, 2, 3),
        members=3,
        hidden=(32, 32),
    )
    model = DynamicsModel(spec)
    generators = [torch.Generator().manual_seed(3 * seed + member) for member in range(3)]
    model.regressor.network.initialize("lecun_uniform", generators)
    return model


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "models")
    for seed in range(3):
        registry.publish("slide", make_model(seed).save)
    return registry


@contextmanager
def server(
    registry: Registry, port: int = 0, *options: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "dynlearn_services", "serve", "--model", "slide"]
    home = str(registry.root.parent)
    with subprocess.Popen(
        [*command, "--port", str(port), "--home", home, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        match = re.search(r"http://\S+", process.stdout.readline())
        assert match is not None
        try:
            yield process, match[0]
        finally:
            process.kill()


def test_versions_change_under_load_and_nobody_notices(registry: Registry) -> None:
    models = {str(version): make_model(version - 1) for version in (1, 2, 3)}
    expected = {version: model.predict(OBSERVATION, ACTION) for version, model in models.items()}
    rollouts = {
        version: model.rollout(OBSERVATION[:1], PLANS, 4, "ts1", seed=7).mean
        for version, model in models.items()
    }
    seen: list[str] = []
    end = time.monotonic() + SECONDS

    async def caller(index: int, url: str) -> None:
        rng = np.random.default_rng(index)
        async with AsyncDynamicsClient(url, "slide") as client:
            while time.monotonic() < end:
                if index % 4 == 3:
                    found = await client.rollout(OBSERVATION[:1], PLANS, 4, "ts1", seed=7)
                    version, value = found.model_version, found.mean
                    truth = rollouts[version]
                else:
                    rows = slice(0, int(rng.integers(1, 64)))
                    prediction = await client.predict(OBSERVATION[rows], ACTION[rows], ("mean",))
                    version, value = prediction.model_version, prediction.mean
                    truth = expected[version].mean[rows]
                # Versions differ by far more; an answer from two of them would be neither's.
                np.testing.assert_allclose(value, truth, rtol=1e-3, atol=1e-4)
                seen.append(version)

    async def pinned(url: str) -> None:
        async with AsyncDynamicsClient(url, "slide", "1") as client:
            while time.monotonic() < end:
                prediction = await client.predict(OBSERVATION, ACTION, ("mean", "variance"))
                assert prediction.model_version == "1"
                truth = expected["1"]
                np.testing.assert_allclose(prediction.mean, truth.mean, rtol=1e-3, atol=1e-4)
                await asyncio.sleep(0.01)

    def publisher() -> None:
        rng = np.random.default_rng(0)
        for swap in range(SWAPS):
            if swap == 8:
                registry.publish("slide", write_corrupt)
            if swap == 12:
                shutil.rmtree(registry.root / "slide" / "1")
            known = "23" if swap >= 12 else "123"
            registry.set_alias("slide", "champion", known[int(rng.integers(len(known)))])
            time.sleep(SECONDS / (SWAPS + 2))

    def write_corrupt(folder: Path) -> None:
        make_model(9).save(folder)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-7])

    async def everyone(url: str) -> None:
        publishing = asyncio.create_task(asyncio.to_thread(publisher))
        await asyncio.gather(pinned(url), *(caller(index, url) for index in range(CALLERS)))
        await publishing

    with server(registry) as (_, url):
        asyncio.run(everyone(url))
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    assert len(seen) > 200
    assert set(seen) == {"1", "2", "3"}
    assert not re.search(r'requests_total\{.*outcome="(?!ok)', metrics)


def test_sigterm_under_load_answers_what_was_accepted(registry: Registry) -> None:
    plans = RNG.uniform(-1, 1, (1, 3000, 30, 1)).astype("f4")
    answers: list[object] = []

    def ask(url: str) -> None:
        try:
            with DynamicsClient(url, "slide", retries=0) as client:
                answers.append(client.rollout(OBSERVATION[:1], plans, 20, outputs=("variance",)))
        except DynlearnError as error:
            answers.append(error)

    with server(registry) as (process, url):
        threads = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        assert not answers
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(20) == 0
        assert time.monotonic() - begun < 12
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert [type(answer).__name__ for answer in answers] == ["RemoteRollout"] * 3


def test_a_killed_server_that_comes_back_loses_no_call(registry: Registry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answered: list[str] = []
    stop = threading.Event()
    faults: list[BaseException] = []

    def ask() -> None:
        try:
            with DynamicsClient(url, "slide", retries=50, timeout=60) as client:
                while not stop.is_set():
                    prediction = client.predict(OBSERVATION, ACTION, ("mean",))
                    answered.append(prediction.model_version)
        except BaseException as error:
            faults.append(error)

    with server(registry, port) as (process, url):
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = len(answered)
    with server(registry, port):
        # A client's pauses have become seconds, the longer the later the server is back.
        give_up = time.monotonic() + 30
        while len(answered) <= before + 20 and time.monotonic() < give_up:
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
    assert not faults
    assert before > 20
    assert len(answered) > before + 20


def test_slow_senders_and_callers_that_never_read_slow_nobody(registry: Registry) -> None:
    plans = RNG.uniform(-1, 1, (1, 500, 40, 1)).astype("f4")
    body = np.concatenate([plans.ravel(), OBSERVATION[0]]).tobytes()
    header = (
        b'{"inputs":[{"name":"actions","datatype":"FP32","shape":[1,500,40,1],"parameters":'
        b'{"binary_data_size":80000}},{"name":"observations","datatype":"FP32","shape":[1,4],'
        b'"parameters":{"binary_data_size":16}}],"outputs":[{"name":"particles"}],'
        b'"parameters":{"binary_data_output":true,"particles":20}}'
    )
    request = (
        (
            f"POST /v1/models/slide/rollout HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
            f"{len(header) + len(body)}\r\nInference-Header-Content-Length: {len(header)}\r\n\r\n"
        ).encode()
        + header
        + body
    )

    def p50(client: DynamicsClient) -> float:
        taken = []
        for _ in range(60):
            began = time.perf_counter()
            client.predict(OBSERVATION, ACTION, ("mean",))
            taken.append(time.perf_counter() - began)
        return float(np.median(taken))

    with server(registry) as (_, url), DynamicsClient(url, "slide", retries=0) as client:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        p50(client)
        alone = p50(client)
        connections = [socket.create_connection(address) for _ in range(60)]
        for connection in connections[:50]:
            connection.sendall(request[:5000])
        for connection in connections[50:]:
            # Each answer is 6 MB, which nobody reads.
            connection.sendall(request)
        time.sleep(2.0)
        beside = p50(client)
        for connection in connections:
            connection.close()
        assert client.predict(OBSERVATION, ACTION, ("mean",)).mean.shape == (64, 4)
    assert beside < 3 * alone + 0.005
