import asyncio
import http.server
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
import torch

from dynlearn.client import AsyncDynamicsClient, DynamicsClient
from dynlearn.config import ServeConfig
from dynlearn.errors import (
    CorruptData,
    DynlearnError,
    InvalidInput,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.planning.remote import RemoteDynamics
from dynlearn.registry import Registry
from dynlearn.rollout.trajectory import rollout
from dynlearn.spaces import BoxSpace, DiscreteSpace, ObservationSpace
from dynlearn_services.server import running_server
from dynlearn_services.tokens import Tokens

BOX = BoxSpace(low=(-1, -1), high=(1, 1))


def make_model(action_space, targets, head="variance"):
    """Four observation columns in, ``targets`` of them out, three members, random weights."""
    spec = ModelSpec(
        observation_space=ObservationSpace(observation=BoxSpace(low=(-1,) * 4, high=(1,) * 4)),
        action_space=action_space,
        observation_columns=(0, 1, 2, 3),
        target_columns=targets,
        members=3,
        hidden=(16, 16),
        head=head,
    )
    model = DynamicsModel(spec)
    generators = [torch.Generator().manual_seed(member) for member in range(3)]
    model.regressor.network.initialize("lecun_uniform", generators)
    with torch.no_grad():
        model.regressor.target_scaler.std.copy_(torch.linspace(0.1, 0.5, len(targets)))
        model.regressor.target_scaler.mean.fill_(0.05)
    return model


MODELS = {
    "arm": make_model(BOX, (0, 1, 2, 3)),
    "walk": make_model(DiscreteSpace(n=3, start=-1), (0, 1, 2, 3)),
    "object": make_model(BOX, (2, 1)),
    "full": make_model(BOX, (0, 1, 2, 3), "scale_tril"),
}


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    """The address of one server for each model, and one that takes ten rows at most."""
    registry = Registry(tmp_path_factory.mktemp("models"))
    for name, model in MODELS.items():
        registry.publish(name, model.save)

    def serving(name, **changes):
        return running_server(ServeConfig(model=name, port=0, **changes), registry.root)

    with (
        serving("arm") as arm,
        serving("walk") as walk,
        serving("object") as object_,
        serving("full") as full,
        serving("arm", max_rows=10) as small,
    ):
        yield {"arm": arm, "walk": walk, "object": object_, "full": full, "small": small}


@pytest.fixture
def client(urls):
    with DynamicsClient(urls["arm"], "arm") as client:
        yield client


@pytest.fixture
def rows():
    draws = np.random.default_rng(0)
    return draws.normal(size=(6, 4)).astype("f4"), draws.uniform(-1, 1, (6, 2)).astype("f4")


def test_spec(client, urls):
    spec = client.spec
    assert (spec.name, spec.version) == ("arm", "1")
    assert (spec.observation_size, spec.members, spec.full_state) == (4, 3, True)
    assert spec.action_space == BOX
    with DynamicsClient(urls["object"], "object") as other:
        assert other.spec.target_columns == (2, 1)
        assert not other.spec.full_state


def test_the_spec_tells_variances_from_full_covariances(client, urls):
    assert client.spec.covariance == "diagonal"
    with DynamicsClient(urls["full"], "full") as other:
        assert other.spec.covariance == "full"


EVERYTHING = (
    "mean",
    "variance",
    "covariance",
    "aleatoric",
    "epistemic",
    "member_means",
    "member_variances",
    "member_scale_trils",
)


@pytest.mark.parametrize(("name", "version"), [("arm", None), ("arm", "1"), ("full", None)])
def test_fetched_outputs_are_those_of_the_model(urls, rows, name, version):
    expected = MODELS[name].predict(*rows)
    with DynamicsClient(urls[name], name, version) as client:
        prediction = client.predict(*rows, outputs=EVERYTHING)
    for name in EVERYTHING:
        np.testing.assert_array_equal(getattr(prediction, name), getattr(expected, name))
    assert prediction.model_version == "1"


@pytest.mark.parametrize("name", ["arm", "full"])
def test_the_members_factors_hold_all_their_moments(urls, rows, name):
    with DynamicsClient(urls[name], name) as client:
        found = client.predict(*rows, outputs=EVERYTHING)
    factors, means = found.member_scale_trils, found.member_means
    assert factors.shape == (3, 6, 4, 4)
    assert (np.triu(factors, 1) == 0).all()
    assert (np.tril(factors, -1) != 0).any() == (name == "full")
    covariances = factors @ factors.swapaxes(-1, -2)
    variances = np.diagonal(covariances, axis1=-2, axis2=-1)
    np.testing.assert_allclose(variances, found.member_variances, rtol=1e-5)
    np.testing.assert_allclose(covariances.mean(0), found.aleatoric, rtol=1e-5, atol=1e-8)
    between = np.einsum("ebi,ebj->bij", means - found.mean, means - found.mean) / 3
    np.testing.assert_allclose(between, found.epistemic, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(
        found.covariance, found.aleatoric + found.epistemic, rtol=1e-5, atol=1e-8
    )


def test_default_outputs_hold_what_the_rest_follows_from(client, rows):
    expected = MODELS["arm"].predict(*rows)
    prediction = client.predict(*rows)
    for name in ("mean", "aleatoric", "epistemic", "covariance"):
        np.testing.assert_array_equal(getattr(prediction, name), getattr(expected, name))
    for name in ("variance", "std"):
        np.testing.assert_allclose(getattr(prediction, name), getattr(expected, name), rtol=1e-5)


def test_what_was_not_fetched_says_how_to_ask(client, rows):
    prediction = client.predict(*rows, outputs=("mean",))
    for name in ("variance", "std", "covariance", "epistemic", "member_means"):
        needed = "variance" if name == "std" else name
        with pytest.raises(InvalidInput, match=rf"outputs=\('{needed}'"):
            getattr(prediction, name)


def test_lists_tensors_and_doubles_go_in(client, rows):
    observation, action = rows
    expected = client.predict(observation, action).mean
    for convert in (np.ndarray.tolist, torch.from_numpy, np.float64, np.asfortranarray):
        found = client.predict(convert(observation), convert(action)).mean
        np.testing.assert_array_equal(found, expected)


def test_discrete_actions(urls, rows):
    choices = np.array([-1, 0, 1, 1, 0, -1], np.int8)
    with DynamicsClient(urls["walk"], "walk") as client:
        found = client.predict(rows[0], choices)
        with pytest.raises(InvalidInput, match=r"action: expected integers .*, got float64"):
            client.predict(rows[0], choices * 0.5)
        with pytest.raises(InvalidInput, match="action: expected integers -1 to 1, got 0 to 2"):
            client.predict(rows[0], choices + 1)
    np.testing.assert_array_equal(found.mean, MODELS["walk"].predict(rows[0], choices).mean)


def choices_in_every_form(choices, n, start):
    """Integers, in a column, and one-hot: by what they are."""
    code = np.eye(n)[choices - start]
    return {
        "integers": choices,
        "a list": choices.tolist(),
        "int8": choices.astype(np.int8),
        "a column": choices[..., None],
        "one-hot": code,
        "float32": code.astype(np.float32),
        "one-hot integers": code.astype(np.int64),
        "a tensor": torch.from_numpy(choices),
        "a tensor's column": torch.from_numpy(choices)[..., None],
        "a one-hot tensor": torch.from_numpy(code),
    }


def test_choices_mean_the_same_in_every_form_both_ways(urls, rows):
    model, choices = MODELS["walk"], np.array([-1, 0, 1, 1, 0, -1])
    expected = model.predict(rows[0], choices).mean
    sequences = choices.reshape(1, 2, 3)
    imagined = model.rollout(rows[0][:1], sequences, particles=4, seed=3).particles
    with DynamicsClient(urls["walk"], "walk") as client:
        for form, given in choices_in_every_form(choices, 3, -1).items():
            assert torch.equal(model.predict(rows[0], given).mean, expected), form
            np.testing.assert_array_equal(client.predict(rows[0], given).mean, expected), form
            drawn = model.sample(rows[0], given, seed=5)[0]
            np.testing.assert_array_equal(client.sample(rows[0], given, 5).value, drawn)
        for form, given in choices_in_every_form(sequences, 3, -1).items():
            inside = model.rollout(rows[0][:1], given, particles=4, seed=3).particles
            assert torch.equal(inside, imagined), form
            outside = client.rollout(rows[0][:1], given, 4, seed=3, outputs=("particles",))
            np.testing.assert_array_equal(outside.particles, imagined)


@pytest.mark.parametrize(
    "wrong",
    [
        [0.0, 1, 0, 1, 0, 1],
        np.full((6, 3), 1 / 3),
        np.ones((6, 3)),
        np.zeros((6, 3)),
        np.zeros((6, 2)),
        np.zeros((6, 1)),
        np.full((6, 3), np.nan),
        [0, 1, 2, 0, 1, 0],
        [[0], [1], [2], [0], [1], [0]],
        [[0, 1, 0], [1, 0]] * 3,
        [None] * 6,
        ["a"] * 6,
        0,
    ],
)
def test_what_is_no_choice_is_refused_both_ways(urls, rows, wrong):
    with DynamicsClient(urls["walk"], "walk") as client:
        for way in (MODELS["walk"], client):
            with pytest.raises(InvalidInput, match="action: expected"):
                way.predict(rows[0], wrong)


def test_what_comes_is_the_callers_own(urls, rows):
    """Consumers write in place, and torch warns of arrays that are not to be written to."""
    with DynamicsClient(urls["arm"], "arm") as client:
        prediction = client.predict(*rows, ("mean", "variance", "member_means"))
        arrays = [*prediction.arrays.values(), client.sample(*rows, 1).value]
        rollout = client.rollout(rows[0][:1], rows[1].reshape(1, 2, 3, 2), outputs=("particles",))
    for array in (*arrays, rollout.particles):
        array += 1
        torch.from_numpy(array)
    np.testing.assert_array_equal(prediction.mean, MODELS["arm"].predict(*rows).mean.numpy() + 1)

    async def ask():
        async with AsyncDynamicsClient(urls["arm"], "arm") as client:
            return await client.predict(*rows, ("mean",))

    assert asyncio.run(ask()).mean.flags.writeable


@pytest.mark.parametrize("name", ["arm", "full", "walk"])
def test_remote_dynamics_of_a_client_of_tensors(urls, rows, name):
    actions = torch.from_numpy(rows[1].reshape(1, 2, 3, 2))
    if name == "walk":
        actions = torch.eye(3)[torch.tensor([[[0, 1, 2], [2, 2, 1]]])]
    observation = torch.from_numpy(rows[0][:1])

    def imagined(**options):
        with DynamicsClient(urls[name], name, **options) as client:
            dynamics = RemoteDynamics(client)
            return rollout(dynamics, observation, actions, 4, "ts1", 0).particles

    assert torch.equal(imagined(as_torch=True), imagined())


def test_versions_and_numbers_of_numpy(urls, rows):
    with DynamicsClient(urls["arm"], "arm", np.int64(1)) as client:
        assert client.predict(*rows, ("mean",)).model_version == "1"
        sample = client.sample(*rows, np.int64(3)).value
        np.testing.assert_array_equal(sample, client.sample(*rows, 3).value)
        options = dict(particles=np.int32(4), seed=np.uint64(3), discount=np.float32(0.5))
        actions = rows[1].reshape(1, 2, 3, 2)
        found = client.rollout(rows[0][:1], actions, outputs=("particles",), **options)
    assert found.particles.shape == (1, 2, 4, 3, 4)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda c, o, a: c.predict(o > 0, a), "observation: expected rows of numbers"),
        (lambda c, o, a: c.predict([[True, 0, 0, 0.5]], a[:1]), "observation: expected rows of"),
        (lambda c, o, a: c.predict(o.astype(str), a), "observation: expected rows of numbers"),
        (lambda c, o, a: c.predict(o, a, member=[1.7] * len(o)), "member: expected integers"),
        (lambda c, o, a: c.predict(o, a, member=[True] + [1] * (len(o) - 1)), "member: expected"),
        (lambda c, o, a: c.predict(o, a, outputs=()), "outputs: expected at least one name"),
        (lambda c, o, a: c.predict(o, a, members=[]), "members: expected distinct members"),
        (lambda c, o, a: c.sample(o, a, seed=True), "seed: expected an integer, got True"),
        (lambda c, o, a: c.sample(o, a, seed=float("nan")), "seed: expected an integer, got nan"),
        (
            lambda c, o, a: c.rollout(o[:1], a[None, None], True),
            "particles: expected an integer, got True",
        ),
    ],
)
def test_what_is_no_number_is_not_taken_for_one(client, rows, ask, message):
    with pytest.raises(InvalidInput, match=message):
        ask(client, *rows)


def test_refusals_of_the_server_become_our_errors(client, urls, rows):
    observation, action = rows
    with pytest.raises(
        InvalidInput, match=r"observation: expected shape \[rows, 4\], got \[6, 3\]"
    ):
        client.predict(observation[:, :3], action)
    with pytest.raises(InvalidInput, match="action: expected finite values"):
        client.predict(observation, action * np.nan)
    with pytest.raises(InvalidInput, match="observation: expected finite values"):
        client.predict(observation * np.float64(1e300), action)
    with pytest.raises(InvalidInput, match="action: expected rows of numbers"):
        client.predict(observation, [[1, 2], [3]])
    with pytest.raises(InvalidInput, match="did you mean covariance"):
        client.predict(observation, action, outputs=("covarance",))
    with (
        DynamicsClient(urls["arm"], "army") as other,
        pytest.raises(NotFound, match="did you mean arm"),
    ):
        other.predict(observation, action)
    with (
        DynamicsClient(urls["arm"], "arm", version="7") as other,
        pytest.raises(NotFound, match=r"expected a version of model arm, got '7'"),
    ):
        other.spec  # noqa: B018
    with (
        DynamicsClient(urls["small"], "arm") as other,
        pytest.raises(TooLarge, match="observation: expected at most 10 rows, got 12"),
    ):
        other.predict(np.tile(observation, (2, 1)), np.tile(action, (2, 1)))


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://a:b"])
def test_addresses_to_refuse(url):
    with pytest.raises(InvalidInput, match="expected an address like"):
        DynamicsClient(url, "arm")


def test_no_server(rows):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # It accepts, and never answers.
        with (
            DynamicsClient(url, "arm", timeout=0.2) as client,
            pytest.raises(Unavailable, match=rf"an answer from {url} within 0\.2 s"),
        ):
            client.predict(*rows)
    with (
        DynamicsClient(url, "arm", retries=1) as client,
        pytest.raises(Unavailable, match=f"expected a server at {url}"),
    ):
        client.predict(*rows)


@pytest.fixture
def answering():
    """Return a function that starts a server of one fixed answer and returns its address."""
    servers = []

    def start(status, body):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>", CorruptData),
        (200, b'{"name": "other", "versions": []}', CorruptData),
        (400, b'{"error": "no"}', InvalidInput),
        (404, b"<html>", NotFound),
        (418, b"", InvalidInput),
        (500, b'{"error": "a fault"}', DynlearnError),
        (502, b"<html>" * 1000, Unavailable),
        (503, b'{"error": 5}', Unavailable),
    ],
)
def test_answers_of_other_servers(answering, status, body, kind):
    url = answering(status, body)
    with DynamicsClient(url, "arm", retries=0) as client, pytest.raises(kind) as caught:
        client.spec  # noqa: B018
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "expectation"])
@pytest.mark.parametrize("name", ["arm", "walk", "full"])
def test_remote_rollouts_are_the_local_ones(urls, name, propagation):
    model = MODELS[name]
    draws = torch.Generator().manual_seed(1)
    observation = torch.randn(2, 4, generator=draws)
    actions = torch.rand(2, 3, 5, model.spec.action_size, generator=draws) * 2 - 1
    if name == "walk":
        actions = torch.eye(3)[actions.argmax(-1)]
    with DynamicsClient(urls[name], name) as client:
        remote, local = (
            rollout(dynamics, observation, actions, 4, propagation, seed=2)
            for dynamics in (RemoteDynamics(client), model)
        )
    torch.testing.assert_close(remote.particles, local.particles, rtol=1e-4, atol=1e-5)


def test_remote_steps_are_correlated_as_the_members_are(urls):
    """Ten thousand draws of one row of one member, against the member's own covariance."""
    draws = torch.Generator().manual_seed(3)
    observation, action = torch.randn(1, 4, generator=draws), torch.rand(1, 2, generator=draws)
    noise = torch.randn(10_000, 4, generator=draws)
    member = torch.full((10_000,), 1)
    with DynamicsClient(urls["full"], "full") as client:
        found = RemoteDynamics(client).step(
            observation.expand(10_000, -1), action.expand(10_000, -1), member, noise
        )
    members = MODELS["full"].predict(observation, action).members
    expected = members.covariance[1, 0]
    scale = expected.diagonal().sqrt()
    torch.testing.assert_close(
        found.T.cov() / scale.outer(scale), expected / scale.outer(scale), rtol=0, atol=0.05
    )


@pytest.mark.parametrize(
    ("name", "fetched"), [("arm", {"mean", "variance"}), ("full", {"mean", "member_scale_trils"})]
)
def test_factors_travel_only_where_they_say_more_than_variances(urls, name, fetched, monkeypatch):
    with DynamicsClient(urls[name], name) as client:
        dynamics = RemoteDynamics(client)
        answers = []
        predict = client.predict
        monkeypatch.setattr(
            client, "predict", lambda *args: answers.append(predict(*args)) or answers[-1]
        )
        member = torch.zeros(2, dtype=torch.int64)
        dynamics.step(torch.zeros(2, 4), torch.zeros(2, 2), member, torch.zeros(2, 4))
        dynamics.step(torch.zeros(2, 4), torch.zeros(2, 2), member, None)
    assert [set(answer.arrays) for answer in answers] == [fetched, {"mean"}]


def test_a_step_without_noise_is_the_member_s_mean(urls):
    observation, action = torch.randn(5, 4), torch.rand(5, 2)
    member = torch.tensor([2, 0, 1, 1, 2])
    with DynamicsClient(urls["arm"], "arm") as client:
        found = RemoteDynamics(client).step(observation, action, member, None)
    means = MODELS["arm"].predict(observation, action).member_means
    torch.testing.assert_close(found, means[member, torch.arange(5)])


def test_a_plan_never_mixes_versions(tmp_path):
    registry = Registry(tmp_path)
    for _ in range(2):
        registry.publish("arm", MODELS["arm"].save)
    with running_server(ServeConfig(model="arm/1", port=0), tmp_path) as url:
        client = DynamicsClient(url, "arm")
        dynamics = RemoteDynamics(client)
        dynamics.step(torch.zeros(1, 4), torch.zeros(1, 2), None, None)
    port = int(url.rpartition(":")[2])
    with (
        client,
        running_server(ServeConfig(model="arm/2", port=port), tmp_path),
        pytest.raises(Unavailable, match=r"expected version 1 .* got version 2"),
    ):
        dynamics.step(torch.zeros(1, 4), torch.zeros(1, 2), None, None)


def test_rollouts_need_the_full_state(urls):
    with (
        DynamicsClient(urls["object"], "object") as client,
        pytest.raises(InvalidInput, match=r"all 4 observation columns, got .* \[2, 1\]"),
    ):
        RemoteDynamics(client)


def test_the_client_is_light():
    code = "import sys, dynlearn.client; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "pyarrow", "matplotlib", "orjson", "fastapi", "gymnasium"} & set(loaded)


def test_a_named_member_answers_its_row_alone(client, rows):
    member = np.arange(len(rows[0])) % 3
    one = client.predict(*rows, ("mean", "variance"), member)
    every = client.predict(*rows, ("member_means", "member_variances"))
    chosen = member, np.arange(len(member))
    np.testing.assert_allclose(one.mean, every.member_means[chosen], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(one.variance, every.member_variances[chosen], rtol=1e-5)


def test_samples_are_those_of_the_model(client, urls, rows):
    sample = client.sample(*rows, seed=3)
    value, member = MODELS["arm"].sample(*rows, seed=3)
    np.testing.assert_array_equal(sample.value, value)
    np.testing.assert_array_equal(sample.member, member)
    assert sample.model_version == "1"
    with DynamicsClient(urls["arm"], "arm", as_torch=True) as other:
        assert torch.equal(other.sample(*rows, seed=3).value, value)


def test_members_that_are_none_and_a_member_for_no_row(client, rows):
    with pytest.raises(InvalidInput, match="members: expected distinct members, got"):
        client.predict(*rows, members=[])
    with pytest.raises(InvalidInput, match="member: expected integers, one a row, got the number"):
        client.predict(*rows, member=1)


def test_some_members_make_up_a_mixture(client, rows):
    some = client.predict(*rows, ("mean", "covariance"), members=[2, 0])
    every = client.predict(*rows, ("member_means", "member_variances"))
    means, variances = every.member_means[[0, 2]], every.member_variances[[0, 2]]
    np.testing.assert_allclose(some.mean, means.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(some.variance, variances.mean(0) + means.var(0), rtol=1e-5)


@pytest.mark.parametrize("name", ["arm", "walk", "full"])
def test_rollouts_in_one_call_are_the_local_ones(urls, name):
    model = MODELS[name]
    draws = np.random.default_rng(1)
    observations = draws.normal(size=(2, 4)).astype("f4")
    actions = draws.uniform(-1, 1, (2, 3, 5, 2)).astype("f4")
    if name == "walk":
        actions = draws.integers(-1, 2, (2, 3, 5))
    expected = model.rollout(observations, actions, particles=4, seed=2)
    with DynamicsClient(urls[name], name) as client:
        found = client.rollout(
            observations, actions, 4, seed=2, outputs=("mean", "covariance", "particles")
        )
        again = client.rollout(observations, actions, 4, seed=2, outputs=("variance",))
    for output in ("mean", "covariance", "particles"):
        np.testing.assert_allclose(
            getattr(found, output), getattr(expected, output), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(again.variance, found.variance, rtol=1e-4, atol=1e-6)
    assert found.model_version == "1"


def test_concurrent_calls_on_an_event_loop(urls, rows):
    observation, action = rows

    async def ask():
        async with AsyncDynamicsClient(urls["arm"], "arm") as client:
            assert (await client.spec()).members == 3
            async with client.pin() as plan:
                return await asyncio.gather(
                    *(plan.predict(observation * i, action, ("mean",)) for i in range(20))
                )

    for i, prediction in enumerate(asyncio.run(ask())):
        expected = MODELS["arm"].predict(observation * i, action).mean
        np.testing.assert_allclose(prediction.mean, expected, rtol=1e-5, atol=1e-6)


def test_a_server_that_wants_tokens(tmp_path, rows):
    Registry(tmp_path / "models").publish("arm", MODELS["arm"].save)
    tokens = Tokens(tmp_path / "tokens.json")
    token = tokens.create("planner", "read")
    config = ServeConfig(model="arm", port=0)
    with running_server(config, tmp_path / "models", tokens) as url:
        for wrong in ("", "dynlearn_guess"):
            with DynamicsClient(url, "arm", token=wrong) as client, pytest.raises(Unauthorized):
                client.predict(*rows)
        with DynamicsClient(url, "arm", token=token) as client:
            assert client.predict(*rows).model_version == "1"


def test_a_pinned_plan_keeps_its_version_while_another_is_served(tmp_path, rows):
    registry = Registry(tmp_path)
    for name in ("arm", "full"):
        registry.publish("arm", MODELS[name].save)
    registry.set_alias("arm", "champion", "1")

    def both(client):
        found = client.predict(*rows, ("mean",))
        expected = MODELS[{"1": "arm", "2": "full"}[found.model_version]].predict(*rows).mean
        np.testing.assert_allclose(found.mean, expected, rtol=1e-5, atol=1e-6)
        return found.model_version

    with (
        running_server(ServeConfig(model="arm", port=0), tmp_path) as url,
        DynamicsClient(url, "arm") as client,
        client.pin() as plan,
    ):
        assert both(client) == both(plan) == "1"
        registry.set_alias("arm", "champion", "2")
        end = time.monotonic() + 10
        while both(client) == "1" and time.monotonic() < end:
            time.sleep(0.05)
        assert both(client) == "2"
        assert both(plan) == plan.spec.version == "1"
        with client.pin() as later:
            assert both(later) == "2"


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": None},
        {"timeout": "30"},
        {"timeout": float("nan")},
        {"retries": None},
        {"retries": 1.5},
        {"retries": -1},
    ],
)
def test_patience_to_refuse(wrong):
    with pytest.raises(InvalidInput, match=f"{next(iter(wrong))}: expected"):
        DynamicsClient("http://127.0.0.1:1", "arm", **wrong)


def test_an_address_is_whatever_writes_itself_as_one():
    url = httpx.URL("http://127.0.0.1:1/")
    with DynamicsClient(url, "arm", timeout=np.float32(2), retries=np.int64(3)) as client:
        assert client.url == "http://127.0.0.1:1"
