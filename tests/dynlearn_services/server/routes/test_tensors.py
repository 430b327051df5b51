import asyncio
import http.client
import json
import threading
import time

import httpx
import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from dynlearn.config import ServeConfig
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.protocol.messages import decode_response
from dynlearn.protocol.names import OUTPUTS, SAMPLE, SAMPLE_MEMBER
from dynlearn.registry import Registry
from dynlearn_services.server import running_server
from dynlearn_services.server.models.loaded_model import LoadedModel

ROWS = 40
MEAN = OUTPUTS["mean"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory, make_model):
    registry = Registry(tmp_path_factory.mktemp("models"))
    registry.publish("arm", make_model().save)
    return registry


def config(**changes):
    return ServeConfig(model="arm", port=0, **changes)


@pytest.fixture(scope="module")
def url(registry):
    with running_server(config(max_rows=20_000), registry.root) as url:
        yield url


@pytest.fixture(scope="module")
def model(registry):
    return DynamicsModel.load(registry.resolve("arm").folder)


@pytest.fixture(scope="module")
def rows(draw_rows):
    return draw_rows(ROWS)


@pytest.fixture
def triton(url):
    with tritonclient.http.InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


def tensors(observation, action, module=tritonclient.http):
    inputs = []
    for name, values in (("observation", observation), ("action", action)):
        tensor = module.InferInput(name, list(values.shape), "FP32")
        inputs.append(tensor.set_data_from_numpy(values))
    return inputs


def outputs(*names):
    return [tritonclient.http.InferRequestedOutput(name) for name in names]


def body(observation, action, names=(MEAN,), **parameters):
    document = {
        "inputs": [
            {
                "name": name,
                "datatype": "FP32",
                "shape": values.shape,
                "data": values.ravel().tolist(),
            }
            for name, values in (("observation", observation), ("action", action))
        ],
        "outputs": [{"name": name} for name in names],
        "parameters": parameters,
    }
    return json.dumps(document).encode()


def ask(url, content, **options):
    address = f"{url}/v2/models/arm/infer"
    return httpx.post(address, content=content, trust_env=False, timeout=30, **options)


@pytest.mark.parametrize("packed_in", ["gzip", "deflate", None])
@pytest.mark.parametrize("packed_out", ["gzip", "deflate", None])
def test_compression_both_ways(triton, model, rows, packed_in, packed_out):
    result = triton.infer(
        "arm",
        tensors(*rows),
        outputs=outputs(MEAN, OUTPUTS["covariance"]),
        request_compression_algorithm=packed_in,
        response_compression_algorithm=packed_out,
    )
    np.testing.assert_array_equal(result.as_numpy(MEAN), model.predict(*rows).mean)


def test_compression_and_the_asynchronous_client(url, model, rows):
    async def ask():
        async with tritonclient.http.aio.InferenceServerClient(
            url.removeprefix("http://")
        ) as client:
            return await client.infer(
                "arm",
                tensors(*rows, tritonclient.http.aio),
                request_compression_algorithm="gzip",
                response_compression_algorithm="gzip",
            )

    mean = asyncio.run(ask()).as_numpy(MEAN)
    np.testing.assert_array_equal(mean, model.predict(*rows).mean)


def test_samples_are_those_of_the_model_in_process(triton, model, rows):
    value, member = model.sample(*rows, seed=5)
    result = triton.infer(
        "arm", tensors(*rows), outputs=outputs(SAMPLE, SAMPLE_MEMBER, MEAN), parameters={"seed": 5}
    )
    np.testing.assert_allclose(result.as_numpy(SAMPLE), value, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(result.as_numpy(SAMPLE_MEMBER), member)
    assert result.get_output(SAMPLE_MEMBER)["datatype"] == "INT64"
    np.testing.assert_array_equal(result.as_numpy(MEAN), model.predict(*rows).mean)


@pytest.mark.parametrize("propagation", ["moment_matching", "expectation"])
def test_other_propagations_of_samples(url, model, rows, propagation):
    one = [np.repeat(values[:1], 20_000, 0) for values in rows]
    names = (SAMPLE, MEAN, OUTPUTS["covariance"])
    answer = ask(url, body(*one, names, seed=1, propagation=propagation))
    found = decode_response(answer.content, None).outputs
    if propagation == "expectation":
        np.testing.assert_allclose(found[SAMPLE], found[MEAN], rtol=1e-6)
        return
    covariance = found[OUTPUTS["covariance"]][0]
    scale = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    assert np.abs(np.cov(found[SAMPLE].T) - covariance).max() < 0.05 * scale.max()
    error = (found[SAMPLE].mean(0) - found[MEAN][0]) / np.sqrt(covariance.diagonal() / 20_000)
    assert np.abs(error).max() < 4.5


def test_other_propagations_of_one_members_samples(url, model, rows):
    document = json.loads(body(*rows, (SAMPLE,), seed=1, propagation="expectation"))
    member = [index % 3 for index in range(len(rows[0]))]
    document["inputs"].append(
        {"name": "member", "datatype": "INT64", "shape": [len(member)], "data": member}
    )
    found = decode_response(ask(url, json.dumps(document)).content, None).outputs
    means = model.predict(*rows).member_means[member, range(len(member))]
    np.testing.assert_allclose(found[SAMPLE], means, rtol=1e-5, atol=1e-6)


def test_some_members_make_up_the_mixture(url, model, rows):
    answer = ask(url, body(*rows, (MEAN, OUTPUTS["epistemic"]), members=[2, 0]))
    found = decode_response(answer.content, None).outputs
    means = model.predict(*rows).member_means[[2, 0]]
    np.testing.assert_allclose(found[MEAN], means.mean(0), rtol=1e-5, atol=1e-6)
    half = (means[0] - means[1]).numpy() / 2
    np.testing.assert_allclose(
        found[OUTPUTS["epistemic"]], half[:, :, None] * half[:, None], rtol=1e-4, atol=1e-6
    )


def test_more_rows_than_are_computed_at_once(url, model, draw_rows):
    many = draw_rows(20_000)
    names = (MEAN, OUTPUTS["member_means"])
    found = decode_response(ask(url, body(*many, names)).content, None).outputs
    expected = model.predict(*many)
    np.testing.assert_allclose(found[MEAN], expected.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[names[1]], expected.member_means, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "parameters", "message"),
    [
        ((SAMPLE,), {}, "parameters.seed: expected a seed"),
        ((SAMPLE,), {"seed": -1}, "parameters.seed: "),
        ((SAMPLE,), {"seed": 2**63}, "parameters.seed: "),
        ((SAMPLE,), {"seed": 1, "propagation": "ts2"}, "parameters.propagation: "),
        (
            (SAMPLE_MEMBER,),
            {"seed": 1, "propagation": "expectation"},
            "outputs: expected no sample_member with propagation expectation",
        ),
        ((MEAN,), {"members": []}, "members: expected distinct members"),
        ((MEAN,), {"members": [0, 0]}, "members: expected distinct members"),
        ((MEAN,), {"members": [3]}, "members: expected integers 0 to 2"),
        ((MEAN,), {"members": "all"}, "parameters.members: "),
        ((MEAN,), {"timeout": 0}, "parameters.timeout: "),
        ((MEAN,), {"timeout": 0.5}, "parameters.timeout: "),
    ],
)
def test_parameters_to_refuse(url, rows, names, parameters, message):
    answer = ask(url, body(*rows, names, **parameters))
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_actions_outside_their_bounds(registry, model, rows):
    observation, action = rows
    wild = 10 * action
    low, high = model.spec.action_space.low, model.spec.action_space.high
    clipped = np.clip(wild, np.float32(low), np.float32(high))
    with running_server(config(), registry.root) as url:
        found = decode_response(ask(url, body(observation, wild)).content, None).outputs
        np.testing.assert_allclose(
            found[MEAN], model.predict(observation, clipped).mean, rtol=1e-5, atol=1e-6
        )
    with running_server(config(actions_outside="refuse"), registry.root) as url:
        answer = ask(url, body(observation, wild))
        assert answer.status_code == 400
        assert "action: expected values between [-1.0, -1.0] and [1.0, 2.0]" in answer.text
        assert ask(url, body(observation, action)).status_code == 200


def test_an_observation_that_no_model_can_answer(url, rows):
    observation, action = rows
    observation = observation.copy()
    observation[7] *= np.float32(1e30)
    answer = ask(url, body(observation, action, (OUTPUTS["covariance"],)))
    assert answer.status_code == 400
    assert "observation: row 7: expected values like those that model arm" in answer.json()["error"]


@pytest.mark.parametrize("scale", [1e5, 1e21, 1e38])
@pytest.mark.parametrize("propagation", ["ts1", "moment_matching"])
def test_a_sample_far_away_is_finite_or_its_row_is_named(url, rows, scale, propagation):
    """Members that disagree by more than a covariance in float32 holds."""
    observation, action = (values[:3].copy() for values in rows)
    observation[1] = [0, scale, 0, 0, 0]
    parameters = {"seed": 0, "propagation": propagation}
    answer = ask(url, body(observation, action, ("next_observation_sample",), **parameters))
    if answer.status_code == 400:
        assert scale > 1e21
        assert "observation: row 1: expected values" in answer.json()["error"]
        return
    found = decode_response(answer.content, None).outputs["next_observation_sample"]
    assert np.isfinite(found).all()


def test_an_answer_that_would_be_too_large(registry, rows):
    with running_server(config(max_answer_bytes=2_000), registry.root) as url:
        assert ask(url, body(*rows)).status_code == 200
        answer = ask(url, body(*rows, (OUTPUTS["covariance"],)))
    assert answer.status_code == 413
    assert "outputs: expected an answer of at most 2000 bytes" in answer.json()["error"]


@pytest.fixture
def slow(monkeypatch):
    """Makes a prediction take as long as it says, and counts them."""
    seconds, begun = [0.0], []
    compute = LoadedModel.compute

    def slowed(self, inputs, names):
        begun.append(inputs.rows)
        time.sleep(seconds[0])
        return compute(self, inputs, names)

    monkeypatch.setattr(LoadedModel, "compute", slowed)
    return seconds, begun


def test_a_timeout_and_a_full_queue(registry, rows, slow):
    seconds, _ = slow
    with running_server(config(max_pending=1, batch_rows=1), registry.root) as url:
        seconds[0] = 1.0
        answers = []
        first = threading.Thread(target=lambda: answers.append(ask(url, body(*rows))))
        first.start()
        time.sleep(0.3)
        second = threading.Thread(
            target=lambda: answers.append(ask(url, body(*rows, timeout=100_000)))
        )
        second.start()
        time.sleep(0.3)
        third = ask(url, body(*rows))
        assert third.status_code == 503
        assert third.headers["Retry-After"] == "1"
        assert "at most 1 requests to wait" in third.json()["error"]
        for thread in (first, second):
            thread.join()
        # At its time, not when the thread comes to it.
        assert [answer.status_code for answer in answers] == [504, 200]
        assert "timeout: expected an answer" in answers[0].json()["error"]


def test_work_for_a_caller_that_hung_up_is_dropped(registry, rows, slow):
    seconds, begun = slow
    with running_server(config(), registry.root) as url:
        begun.clear()
        seconds[0] = 1.0
        host = url.removeprefix("http://")
        blocker = threading.Thread(target=ask, args=(url, body(*rows)))
        blocker.start()
        time.sleep(0.2)
        connection = http.client.HTTPConnection(host)
        connection.request("POST", "/v2/models/arm/infer", body(*(r[:7] for r in rows)))
        time.sleep(0.2)
        connection.close()
        blocker.join()
        seconds[0] = 0.0
        assert ask(url, body(*(r[:3] for r in rows))).status_code == 200
    assert begun == [ROWS, 3]


def test_other_methods(url):
    answer = httpx.get(f"{url}/v2/models/arm/infer", trust_env=False)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert list(answer.json()) == ["error"]


def test_errors_reach_the_protocols_client(triton, rows):
    with pytest.raises(InferenceServerException, match=r"parameters\.seed") as caught:
        triton.infer("arm", tensors(*rows), outputs=outputs(SAMPLE))
    assert caught.value.status() == "400"
