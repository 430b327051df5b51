"""Both clients against a small server that does what it is told: falters, stalls, refuses."""

import asyncio
import http.server
import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import pytest
import torch

from dynlearn.client import AsyncDynamicsClient, DynamicsClient
from dynlearn.errors import (
    CorruptData,
    DeadlineExceeded,
    DynlearnError,
    Forbidden,
    InvalidInput,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from dynlearn.protocol.messages import HEADER_LENGTH, InferResponse, decode_request, encode_response

OBSERVATION, ACTION = np.ones((3, 2), np.float32), np.zeros((3, 1), np.float32)
LOWEST = np.finfo(np.float32).min


# What the server does with a request, given its handler.


def serve(handler, version="1", id=None):
    """Answer as a model whose predictions are its observations, and whose returns are zero."""
    if handler.command == "GET":
        body = json.dumps(description(handler.path.partition("/versions/")[2] or version)).encode()
        return send(handler, 200, body)
    request = handler.asked.body
    observation = request.inputs.get("observation")
    rows = 1 if observation is None else len(observation)
    values = {
        "next_observation_mean": observation,
        "next_observation_variance": observation,
        "next_observation_sample": observation,
        "sample_member": np.arange(rows),
        "returns": np.array([[1.5, LOWEST]], np.float32),
        "return_std": np.array([[0.5, 0]], np.float32),
        "trajectory_mean": np.zeros((1, 2, 4, 2), np.float32),
        "trajectory_covariance": np.tile(np.diag([4, 9]).astype(np.float32), (1, 2, 4, 1, 1)),
        "particles": np.zeros((1, 2, 5, 4, 2), np.float32),
    }
    outputs = {name: values[name] for name in request.outputs}
    named = handler.path.partition("/versions/")[2].partition("/")[0] or version
    response = InferResponse("arm", named if version == "1" else version, outputs, id or request.id)
    message = encode_response(response, outputs, lambda document: json.dumps(document).encode())
    return send(handler, 200, message.body, message.headers)


def refuse(handler, status=503, message="busy", **headers):
    send(handler, status, json.dumps({"error": message}).encode(), headers)


def reset(handler):
    """Hang up without a word, as a process that is killed."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def cut(handler):
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True


def drip(handler):
    """Send a byte now and then, for five seconds."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(100):
        handler.wfile.write(b" ")
        if handler.server.stop.wait(0.05):
            return


def stall(handler):
    handler.server.stop.wait(5)
    handler.close_connection = True


def send(handler, status, body, headers=()):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in dict(headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def description(version):
    return {
        "name": "arm",
        "versions": ["1", "2"],
        "platform": "dynlearn",
        "inputs": [],
        "outputs": [],
        "parameters": {
            "version": version,
            "observation_size": 2,
            "action_space": {"kind": "box", "low": [-1], "high": [1]},
            "observation_columns": [0, 1],
            "target_columns": [0, 1],
            "members": 3,
            "covariance": "diagonal",
            "full_state": True,
        },
    }


class Request:
    def __init__(self, handler, content):
        self.path, self.headers, self.connection = (
            handler.path,
            handler.headers,
            handler.client_address,
        )
        self.time = time.monotonic()
        self.body = decode_request(content, self.headers[HEADER_LENGTH]) if content else None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked = Request(self, content)
        self.server.requests.append(self.asked)
        script = self.server.script
        step = script.pop(0) if len(script) > 1 else script[0]
        step(self)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Does what its script says, one entry a request, the last one for all that follow."""

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.script, self.requests, self.stop = [serve], [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Callers that hang up are part of these tests."""

    @property
    def posts(self):
        return [request for request in self.requests if request.body]


@contextmanager
def running(port=0):
    server = Server(port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with running() as server:
        yield server


class Awaited:
    """An `AsyncDynamicsClient` on a loop of its own, called as its twin is."""

    def __init__(self, client, runner):
        self._client, self._run = client, runner.run
        self._runner = runner

    @property
    def spec(self):
        return self._run(self._client.spec())

    @contextmanager
    def pin(self):
        pin = self._client.pin()
        yield Awaited(self._run(pin.__aenter__()), self._runner)
        self._run(pin.__aexit__(None, None, None))

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *args, **options: self._run(method(*args, **options))


@pytest.fixture(params=["blocking", "asynchronous"])
def connect(request, server):
    """Return a function that gives a client of the server."""
    clients = []
    with asyncio.Runner() as runner:

        def connect(server=server, **options):
            if request.param == "blocking":
                client = DynamicsClient(server.url, "arm", **options)
            else:
                client = Awaited(AsyncDynamicsClient(server.url, "arm", **options), runner)
            clients.append(client)
            return client

        yield connect
        for client in clients:
            client.close()


def predict(client):
    return client.predict(OBSERVATION, ACTION, ("mean",)).mean


def test_a_call_keeps_its_connection(server, connect):
    client = connect()
    for _ in range(3):
        np.testing.assert_array_equal(predict(client), OBSERVATION)
    assert len({request.connection for request in server.requests}) == 1
    assert [request.path for request in server.requests] == [
        "/v2/models/arm",
        *["/v2/models/arm/infer"] * 3,
    ]
    ids = [request.body.id for request in server.posts]
    assert len(set(ids)) == 3
    assert server.posts[0].headers["Accept-Encoding"] == "identity"


def test_a_sample(server, connect):
    sample = connect().sample(OBSERVATION, ACTION, np.int64(2**63 - 1))
    np.testing.assert_array_equal(sample.value, OBSERVATION)
    np.testing.assert_array_equal(sample.member, [0, 1, 2])
    assert sample.model_version == "1"
    assert server.posts[0].body.parameters["seed"] == 2**63 - 1


def test_which_members_make_up_the_mixture(server, connect):
    client = connect()
    for members in ([0, 2], np.array([0, 2]), torch.tensor([0, 2])):
        client.predict(OBSERVATION, ACTION, ("mean",), members=members)
        assert server.posts[-1].body.parameters["members"] == [0, 2]
    predict(client)
    assert server.posts[-1].body.parameters.keys() == {"timeout"}


OBSERVATIONS, ACTIONS = np.zeros((1, 2)), np.zeros((1, 2, 4, 1))


def test_a_rollout_with_a_reward(server, connect):
    rollout = connect().rollout(
        OBSERVATIONS,
        ACTIONS,
        particles=7,
        propagation="moment_matching",
        seed=3,
        reward="smooth",
        context=[[1, 2, 3]],
        discount=0.9,
        risk_aversion=1,
    )
    np.testing.assert_array_equal(rollout.returns, [[1.5, LOWEST]])
    assert rollout.model_version == "1"
    with pytest.raises(InvalidInput, match=r"ask with outputs=\('mean', \.\.\.\)"):
        rollout.mean  # noqa: B018
    (request,) = server.posts
    assert request.path == "/v1/models/arm/rollout"
    assert request.body.parameters.pop("timeout") > 0
    assert request.body.parameters == {
        "particles": 7,
        "propagation": "moment_matching",
        "seed": 3,
        "reward": "smooth",
        "discount": 0.9,
        "risk_aversion": 1.0,
    }
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in request.body.inputs.items()}
    assert shapes == {
        "observations": ((1, 2), np.float32),
        "actions": ((1, 2, 4, 1), np.float32),
        "context": ((1, 3), np.float32),
    }


def test_a_rollout_without_a_reward(server, connect):
    client = connect()
    rollout = client.rollout(OBSERVATIONS, ACTIONS)
    assert rollout.arrays.keys() == {"mean", "covariance"}
    assert rollout.mean.shape == (1, 2, 4, 2)
    np.testing.assert_array_equal(rollout.variance, np.tile([4, 9], (1, 2, 4, 1)))
    assert server.posts[0].body.inputs.keys() == {"observations", "actions"}
    assert "reward" not in server.posts[0].body.parameters
    rollout = client.rollout(OBSERVATIONS, ACTIONS, outputs=("particles", "return_std"))
    assert rollout.particles.shape == (1, 2, 5, 4, 2)
    np.testing.assert_array_equal(rollout.return_std, [[0.5, 0]])
    with pytest.raises(InvalidInput, match="did you mean variance"):
        client.rollout(OBSERVATIONS, ACTIONS, outputs=("varience",))


def test_tensors_where_asked_for(connect):
    client = connect(as_torch=True)
    prediction = client.predict(
        torch.ones(3, 2), torch.zeros(3, 1, dtype=torch.float64), ("mean", "variance")
    )
    assert prediction.mean.tolist() == OBSERVATION.tolist()
    assert prediction.std.dtype == torch.float32
    prediction.mean.add_(1)
    assert client.sample(OBSERVATION, ACTION, 0).member.dtype == torch.int64
    rollout = client.rollout(OBSERVATIONS, ACTIONS)
    assert rollout.variance[0, 1, 3].tolist() == [4, 9]


@pytest.mark.parametrize("falter", [refuse, reset, cut])
def test_what_passes_is_tried_again(server, connect, falter):
    client = connect()
    predict(client)
    server.script = [falter, falter, serve]
    np.testing.assert_array_equal(predict(client), OBSERVATION)
    first, again, last = server.posts[1:]
    assert first.body.id == again.body.id == last.body.id
    microseconds = [request.body.parameters["timeout"] for request in (first, again, last)]
    assert 30e6 > microseconds[0] > microseconds[1] > microseconds[2] > 25e6
    assert (again.connection == first.connection) == (falter is refuse)
    assert (last.connection == again.connection) == (falter is refuse)


def test_a_description_is_tried_again(server, connect):
    server.script = [reset, refuse, serve]
    assert connect().spec.version == "1"


def test_no_retry_takes_another_kept_connection(server):
    """All four of a client's connections are as good as dead, and it is to find out only once."""
    with DynamicsClient(server.url, "arm", retries=1) as client:
        together = threading.Barrier(4)

        def wait(handler):
            together.wait(5)
            serve(handler)

        client.spec  # noqa: B018
        server.script = [wait]
        threads = [threading.Thread(target=predict, args=(client,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kept = {request.connection for request in server.posts}
        assert len(kept) == 4

        def dead(handler):
            (reset if handler.client_address in kept else serve)(handler)

        server.script = [dead]
        np.testing.assert_array_equal(predict(client), OBSERVATION)


def test_a_server_that_comes_back(connect):
    with running() as first:
        client = connect(first, retries=20)
        predict(client)
        first.script = [reset]
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:

        def restart():
            time.sleep(0.3)
            return stack.enter_context(running(first.server_port))

        second = pool.submit(restart)
        np.testing.assert_array_equal(predict(client), OBSERVATION)
        assert (len(first.posts), len(second.result().posts)) == (2, 1)


def test_retry_after_is_waited_for(server, connect):
    client = connect(retries=1)
    predict(client)
    server.script = [partial(refuse, Retry_After="1"), serve]
    predict(client)
    waited = server.posts[-1].time - server.posts[-2].time
    assert 1 <= waited < 2


@pytest.mark.parametrize("asked", ["-5", "soon", "1e3", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 99])
def test_a_retry_after_of_another_form_is_passed_over(server, connect, asked):
    server.script = [partial(refuse, Retry_After=asked), serve]
    start = time.monotonic()
    assert connect().spec.version == "1"
    assert time.monotonic() - start < 1


def test_nothing_is_waited_for_beyond_the_timeout(server, connect):
    server.script = [partial(refuse, message="warming up", Retry_After="2")]
    start = time.monotonic()
    with pytest.raises(Unavailable, match=r"^warming up$"):
        predict(connect(timeout=1.5))
    assert time.monotonic() - start < 1
    server.script = [refuse]
    with pytest.raises(Unavailable, match=r"^busy$"):
        predict(connect(timeout=0.5, retries=1000))
    assert time.monotonic() - start < 2


def test_retries_end(server, connect):
    server.script = [refuse]
    with pytest.raises(Unavailable, match=r"^busy$"):
        predict(connect(retries=2))
    assert len(server.requests) == 3
    server.script = [reset]
    with pytest.raises(Unavailable, match=f"expected an answer from {server.url}, got none"):
        predict(connect(retries=0))
    assert len(server.requests) == 4


@pytest.mark.parametrize("slow", [stall, drip])
def test_a_call_ends_at_its_timeout(server, connect, slow):
    client = connect(timeout=0.3)
    predict(client)
    server.script = [slow]
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=rf"from {server.url} within 0\.3 s"):
        predict(client)
    assert 0.25 < time.monotonic() - start < 1.5
    assert len(server.posts) == 2
    server.script = [serve]
    np.testing.assert_array_equal(predict(client), OBSERVATION)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (413, TooLarge),
        (418, InvalidInput),
        (500, DynlearnError),
        (502, Unavailable),
        (504, DeadlineExceeded),
    ],
)
def test_refusals_are_typed_and_final(server, connect, status, kind):
    client = connect()
    predict(client)
    server.script = [partial(refuse, status=status, message="the server's own words")]
    with pytest.raises(DynlearnError, match=r"^the server's own words$") as caught:
        predict(client)
    assert type(caught.value) is kind
    assert len(server.posts) == 2


def test_tokens(server, connect, monkeypatch):
    monkeypatch.delenv("DYNLEARN_TOKEN", raising=False)
    predict(connect())
    predict(connect(token="s3cret"))
    monkeypatch.setenv("DYNLEARN_TOKEN", "of-the-environment")
    predict(connect())
    predict(connect(token="s3cret"))
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent[::2] == [None, "Bearer s3cret", "Bearer of-the-environment", "Bearer s3cret"]
    assert sent[::2] == sent[1::2]
    monkeypatch.setenv("DYNLEARN_TOKEN", "of the environment\n")
    with pytest.raises(InvalidInput, match="token: expected ASCII") as caught:
        connect()
    assert "environment" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": float("nan")}, {"timeout": 1e9}, {"retries": -1}]
)
def test_options_to_refuse(connect, options):
    with pytest.raises(InvalidInput, match="expected"):
        connect(**options)


@pytest.mark.parametrize(
    "given", [{"seed": 1.5}, {"seed": "1"}, {"particles": None}, {"context": [["a"]]}]
)
def test_arguments_to_refuse(connect, given):
    with pytest.raises(InvalidInput, match=next(iter(given))):
        connect().rollout(OBSERVATIONS, ACTIONS, **given)


def test_gradients_are_to_be_detached_by_who_has_them(connect):
    with pytest.raises(InvalidInput, match=r"observation: .*detach"):
        connect().predict(torch.ones(3, 2, requires_grad=True), ACTION)


def test_a_pin_insists_on_the_version_that_was_served(server, connect):
    client = connect()
    server.script = [serve]
    predict(client)
    server.script = [partial(serve, version="2")]
    with client.pin() as plan:
        server.script = [serve]
        assert plan.spec.version == "2"
        assert plan.predict(OBSERVATION, ACTION, ("mean",)).model_version == "2"
        assert plan.sample(OBSERVATION, ACTION, 0).model_version == "2"
        assert plan.rollout(OBSERVATIONS, ACTIONS).model_version == "2"
        with plan.pin() as again:
            assert again.spec.version == "2"
        server.script = [partial(serve, version="3")]
        with pytest.raises(Unavailable, match=r"expected version 2 of model arm .* got version 3"):
            plan.predict(OBSERVATION, ACTION, ("mean",))
    paths = [request.path for request in server.requests[2:]]
    assert paths == [
        "/v2/models/arm",
        "/v2/models/arm/versions/2/infer",
        "/v2/models/arm/versions/2/infer",
        "/v1/models/arm/versions/2/rollout",
        "/v2/models/arm/versions/2",
        "/v2/models/arm/versions/2/infer",
    ]
    assert len({request.connection for request in server.requests}) == 1
    assert client.predict(OBSERVATION, ACTION, ("mean",)).model_version == "3"


def test_a_client_of_one_version_takes_no_other(server, connect):
    server.script = [serve, partial(serve, version="3")]
    with pytest.raises(Unavailable, match="expected version 7 of model arm"):
        predict(connect(version="7"))


def test_an_answer_to_another_question_is_refused(server, connect):
    server.script = [serve, partial(serve, id="another")]
    with pytest.raises(CorruptData, match=r"id: expected .*, got another"):
        predict(connect())


def test_calls_at_the_same_time(server):
    """The server answers neither before it has both."""
    together = threading.Barrier(2)

    def wait(handler):
        together.wait(5)
        serve(handler)

    async def both():
        async with AsyncDynamicsClient(server.url, "arm") as client:
            assert (await client.spec()).version == "1"
            server.script = [wait]
            return await asyncio.gather(
                *(client.predict(OBSERVATION * i, ACTION, ("mean",)) for i in (2, 3))
            )

    found = asyncio.run(both())
    assert [prediction.mean[0, 0] for prediction in found] == [2, 3]


def test_a_cancelled_call_leaves_the_client_usable(server):
    async def cancel():
        async with AsyncDynamicsClient(server.url, "arm") as client:
            await client.spec()
            server.script = [stall, serve]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.predict(OBSERVATION, ACTION)
            return await client.predict(OBSERVATION, ACTION, ("mean",))

    np.testing.assert_array_equal(asyncio.run(cancel()).mean, OBSERVATION)
