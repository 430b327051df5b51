import asyncio
import json
import socket
import time

import numpy as np
import pytest
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from dynlearn.config import ServeConfig
from dynlearn.protocol.metadata import ModelMetadata
from dynlearn.protocol.names import OUTPUTS
from dynlearn_services.server import running_server
from dynlearn_services.server.replicas import running_replicas

ROWS, MAX_BODY = 7, 100_000


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


def config(**changes):
    return ServeConfig(model="arm", port=0, max_body_bytes=MAX_BODY, **changes)


@pytest.fixture(scope="module", params=["process", "replicas"])
def url(request, walking):
    """What every test of the protocol asks: the one process, and Ray Serve before two."""
    if request.param == "process":
        with running_server(config(), walking.root) as url:
            yield url
    else:
        with running_replicas(config(replicas=2), walking.root) as url:
            yield url


@pytest.fixture
def triton(url):
    with tritonclient.http.InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def rows(draw_rows):
    return draw_rows(ROWS)


def triton_inputs(observation, action, module=tritonclient.http, binary=True, datatype="FP32"):
    inputs = []
    for name, values in (("observation", observation), ("action", action)):
        tensor = module.InferInput(name, list(values.shape), datatype)
        inputs.append(tensor.set_data_from_numpy(values, binary_data=binary))
    return inputs


def expected(model, observation, action):
    prediction = model.predict(observation, action)
    return {name: getattr(prediction, attribute).numpy() for attribute, name in OUTPUTS.items()}


def assert_same_bits(result, values):
    for name, value in values.items():
        array = result.as_numpy(name)
        assert array.dtype == np.float32
        assert array.shape == value.shape
        assert array.tobytes() == value.tobytes()


def test_triton_finds_server_and_model(triton, url):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("arm")
    assert triton.is_model_ready("arm", "2")
    assert triton.is_model_ready("arm", "1")
    assert not triton.is_model_ready("arm", "3")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_repository"]


@pytest.mark.parametrize("version", ["", "2"])
def test_triton_reads_the_metadata(triton, model, version):
    metadata = triton.get_model_metadata("arm", version)
    assert metadata["versions"] == ["1", "2"]
    assert metadata["platform"] == "dynlearn"
    assert metadata["inputs"] == [
        {"name": "observation", "datatype": "FP32", "shape": [-1, 5]},
        {"name": "action", "datatype": "FP32", "shape": [-1, 2]},
    ]
    shapes = {tensor["name"]: tensor["shape"] for tensor in metadata["outputs"]}
    assert shapes == {
        "next_observation_mean": [-1, 5],
        "next_observation_variance": [-1, 5],
        "next_observation_covariance": [-1, 5, 5],
        "aleatoric_covariance": [-1, 5, 5],
        "epistemic_covariance": [-1, 5, 5],
        "member_means": [3, -1, 5],
        "member_variances": [3, -1, 5],
        "member_scale_trils": [3, -1, 5, 5],
        "next_observation_sample": [-1, 5],
        "sample_member": [-1],
    }
    parameters = ModelMetadata.model_validate(metadata).parameters
    assert parameters.action_space == model.spec.action_space
    assert (parameters.version, parameters.members, parameters.full_state) == ("2", 3, True)
    assert parameters.covariance == "diagonal"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_triton_gets_every_output_bit_for_bit(triton, model, rows, binary_in, binary_out):
    outputs = [
        tritonclient.http.InferRequestedOutput(name, binary_out) for name in OUTPUTS.values()
    ]
    result = triton.infer(
        "arm", triton_inputs(*rows, binary=binary_in), outputs=outputs, request_id="42"
    )
    assert_same_bits(result, expected(model, *rows))
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("arm", "2", "42")


def test_json_and_binary_mix(triton, model, rows):
    inputs = [triton_inputs(*rows)[0], triton_inputs(*rows, binary=False)[1]]
    outputs = [
        tritonclient.http.InferRequestedOutput("member_means", binary_data=False),
        tritonclient.http.InferRequestedOutput("next_observation_mean", binary_data=True),
    ]
    result = triton.infer("arm", inputs, outputs=outputs)
    values = expected(model, *rows)
    assert "data" in result.get_output("member_means")
    assert "data" not in result.get_output("next_observation_mean")
    assert_same_bits(
        result, {name: values[name] for name in ("member_means", "next_observation_mean")}
    )


def test_default_outputs_are_mean_variance_and_covariance(triton, rows):
    result = triton.infer("arm", triton_inputs(*rows), model_version="2")
    assert [output["name"] for output in result.get_response()["outputs"]] == [
        "next_observation_mean",
        "next_observation_variance",
        "next_observation_covariance",
    ]


def test_double_precision_inputs(triton, model, rows):
    observation, action = (values.astype("f8") for values in rows)
    result = triton.infer("arm", triton_inputs(observation, action, datatype="FP64"))
    assert_same_bits(result, {OUTPUTS["mean"]: model.predict(*rows).mean.numpy()})


def test_asynchronous_triton_client(url, model, rows):
    async def ask():
        async with tritonclient.http.aio.InferenceServerClient(
            url.removeprefix("http://")
        ) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("arm"))["versions"] == ["1", "2"]
            inputs = triton_inputs(*rows, module=tritonclient.http.aio)
            results = await asyncio.gather(*(client.infer("arm", inputs) for _ in range(8)))
            with pytest.raises(InferenceServerException, match="expected a served model"):
                await client.infer("harm", inputs)
        return results

    expected = model.predict(*rows).mean.numpy()
    for result in asyncio.run(ask()):
        # Of merged requests: products of other shapes round otherwise on some processors.
        np.testing.assert_allclose(result.as_numpy(OUTPUTS["mean"]), expected, rtol=0, atol=1e-6)


def test_triton_reads_our_errors(triton, rows):
    with pytest.raises(InferenceServerException, match="did you mean arm") as caught:
        triton.infer("am", triton_inputs(*rows))
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"version of model arm, got '3'.* 1, 2"):
        triton.infer("arm", triton_inputs(*rows), model_version="3")
    with pytest.raises(
        InferenceServerException, match=r"observation: .* \[rows, 5\], got \[7, 4\]"
    ):
        triton.infer("arm", triton_inputs(rows[0][:, :4], rows[1]))


def tensor(name, values, **changes):
    document = {"name": name, "datatype": "FP32", "shape": list(np.shape(values))}
    return document | {"data": np.asarray(values).tolist()} | changes


def ask(http, url, body, name="arm", **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(f"{url}/v2/models/{name}/infer", content=content, **options)


OBSERVATION, ACTION = tensor("observation", np.zeros((2, 5))), tensor("action", np.zeros((2, 2)))
GOOD = {"inputs": [OBSERVATION, ACTION]}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/", 404),
        ("GET", "/v2/models/arm/nothing", 404),
        ("GET", "/v2/models/harm", 404),
        ("GET", "/v2/models/arm/versions/3", 404),
        ("GET", "/v2/models/arm/versions/3/ready", 404),
        ("GET", "/v2/models/arm/versions/..%2F2", 404),
        ("GET", "/v2/models/arm%2F2", 404),
        ("GET", "/v2/models/arm/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("POST", "/v2/models/arm/versions/3/infer", 404),
        ("POST", "/v2/repository/models/harm/load", 404),
        ("POST", "/v2/repository/models/harm/unload", 404),
    ],
)
def test_every_error_has_the_same_form(http, url, method, path, status):
    answer = http.request(method, url + path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_body_cap(http, url):
    large = bytes(MAX_BODY + 1)
    for content in (large, (chunk for chunk in [large[:50], large[50:]])):
        answer = http.post(f"{url}/v2/models/arm/infer", content=content)
        assert answer.status_code == 413
        assert answer.json() == {"error": answer.json()["error"]}
        assert "body: expected at most 100000 bytes" in answer.json()["error"]
    assert ask(http, url, GOOD).status_code == 200


def test_a_hang_up_in_the_middle_of_a_body_is_no_fault(http, url, caplog):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v2/models/arm/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        )
        # Long enough for the route to be waiting for the rest.
        assert ask(http, url, GOOD).status_code == 200
    assert ask(http, url, GOOD).status_code == 200
    assert caplog.records == []


def test_small_answers_do_not_wait_for_a_delayed_acknowledgement(http, url):
    def seconds():
        begin = time.perf_counter()
        ask(http, url, GOOD)
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(20)) < 0.035


def test_content_type_is_not_looked_at(http, url):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "nonsense"):
        assert ask(http, url, GOOD, headers={"Content-Type": kind}).status_code == 200


def test_the_examples_of_the_openapi_page_work(http, url):
    tried = 0
    for path, methods in http.get(f"{url}/openapi.json").json()["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        example = content.get("application/json", {}).get("example")
        if example is None:
            continue
        for parameter in methods["post"]["parameters"]:
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
        answer = http.post(url + path, json=example)
        assert answer.status_code == 200, answer.text
        tried += 1
    assert tried == 4
