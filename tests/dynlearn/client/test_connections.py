"""Where a client's connections live: on which loop, in which process, and for how long."""

import asyncio
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from dynlearn.client import AsyncDynamicsClient, DynamicsClient
from dynlearn.config import ServeConfig
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.registry import Registry
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn_services.server import running_server

OBSERVATION, ACTION = np.zeros((3, 2), np.float32), np.zeros((3, 1), np.float32)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    box = BoxSpace(low=(-1, -1), high=(1, 1))
    spec = ModelSpec(
        observation_space=ObservationSpace(observation=box),
        action_space=BoxSpace(low=(-1,), high=(1,)),
        observation_columns=(0, 1),
        target_columns=(0, 1),
        members=2,
        hidden=(8,),
    )
    model = DynamicsModel(spec)
    generators = [torch.Generator().manual_seed(member) for member in range(2)]
    model.regressor.network.initialize("lecun_uniform", generators)
    registry = Registry(tmp_path_factory.mktemp("models"))
    registry.publish("arm", model.save)
    return registry


@pytest.fixture(scope="module")
def url(registry):
    with running_server(ServeConfig(model="arm", port=0), registry.root) as url:
        yield url


@pytest.fixture(scope="module")
def mean(url):
    """What every client must answer."""
    with DynamicsClient(url, "arm") as client:
        return client.predict(OBSERVATION, ACTION, ("mean",)).mean


def test_one_client_on_one_event_loop_after_the_other(url, mean):
    def ask_thrice():
        client = AsyncDynamicsClient(url, "arm")

        async def ask():
            return await client.predict(OBSERVATION, ACTION, ("mean",))

        for _ in range(3):
            np.testing.assert_array_equal(asyncio.run(ask()).mean, mean)

    ask_thrice()
    # Nobody has closed it, and yet nothing is left open to be warned of.
    gc.collect()


def test_one_client_on_two_event_loops_at_once(url, mean):
    client = AsyncDynamicsClient(url, "arm")
    meet, found = threading.Barrier(2), []

    async def ask():
        for _ in range(5):
            meet.wait()
            found.append((await client.predict(OBSERVATION, ACTION, ("mean",))).mean)

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    for each in found:
        np.testing.assert_array_equal(each, mean)


def test_a_closed_client_opens_connections_when_it_is_asked_again(url, mean):
    client = DynamicsClient(url, "arm")
    client.close()
    np.testing.assert_array_equal(client.predict(OBSERVATION, ACTION, ("mean",)).mean, mean)
    client.close()

    async def ask():
        client = AsyncDynamicsClient(url, "arm")
        await client.close()
        for _ in range(2):
            found = await client.predict(OBSERVATION, ACTION, ("mean",))
            np.testing.assert_array_equal(found.mean, mean)
            await client.close()

    asyncio.run(ask())


def answer(client, results):
    results.put(np.array(client.predict(OBSERVATION, ACTION, ("mean",)).mean))


def test_a_client_travels_to_another_process(url, mean):
    with DynamicsClient(url, "arm", token="secret", as_torch=False, retries=7) as client:
        assert client.spec.version == "1"
        with client.pin() as plan:
            there = pickle.loads(pickle.dumps(plan))
        np.testing.assert_array_equal(there.predict(OBSERVATION, ACTION, ("mean",)).mean, mean)
        there.close()
        context = multiprocessing.get_context("spawn")
        results = context.SimpleQueue()
        process = context.Process(target=answer, args=(client, results))
        process.start()
        np.testing.assert_array_equal(results.get(), mean)
        process.join()
    asynchronous = pickle.loads(pickle.dumps(AsyncDynamicsClient(url, "arm", as_torch=True)))

    async def ask():
        async with asynchronous:
            return (await asynchronous.predict(OBSERVATION, ACTION, ("mean",))).mean

    np.testing.assert_array_equal(asyncio.run(ask()).numpy(), mean)


FORK = """
import os, sys
import numpy as np
from dynlearn.client import DynamicsClient

client = DynamicsClient(sys.argv[1], "arm", retries=0)
rows = [np.full((n + 1, 2), n / 10, np.float32) for n in range(20)]
ask = lambda row: client.predict(row, row[:, :1], ("mean",)).mean
expected = [ask(row) for row in rows]
child = os.fork()
for _ in range(5):
    for row, mean in zip(rows, expected):
        np.testing.assert_array_equal(ask(row), mean)
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not copied here")
def test_a_copied_process_leaves_the_connections_of_the_first_alone(url):
    done = subprocess.run([sys.executable, "-c", FORK, url], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
