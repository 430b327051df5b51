import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
import torch
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from dynlearn.config import ServeConfig
from dynlearn.distributions.mixture import Prediction
from dynlearn.errors import CorruptData, InvalidInput, NotFound
from dynlearn.protocol.messages import HEADER_LENGTH
from dynlearn.protocol.metadata import ModelMetadata
from dynlearn.protocol.names import OUTPUTS
from dynlearn.registry import Registry
from dynlearn.spaces import BoxSpace, DiscreteSpace
from dynlearn_services.server import running_server
from dynlearn_services.server.app import create_app
from dynlearn_services.server.models.inputs import Inputs
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.replicas import running_replicas
from dynlearn_services.server.service import Service

ROWS, MAX_ROWS, MAX_BODY = 7, 1000, 100_000


@pytest.fixture(scope="module")
def model(make_model):
    return make_model(BoxSpace(low=(-1, -1), high=(1, 2)), (0, 1, 2, 3, 4))


@pytest.fixture(scope="module")
def discrete_model(make_model):
    return make_model(DiscreteSpace(n=3, start=1), (3, 1))


@pytest.fixture(scope="module")
def registry(tmp_path_factory, make_model, model, discrete_model):
    registry = Registry(tmp_path_factory.mktemp("models"))
    registry.publish("arm", make_model(model.spec.action_space, (0, 1, 2, 3, 4), seed=1).save)
    registry.publish("arm", model.save)
    registry.publish("walk", discrete_model.save)
    broken = make_model(model.spec.action_space, (0, 1, 2, 3, 4))
    with torch.no_grad():
        broken.network.perceptrons[0][-1].bias.fill_(3e38)
        broken.target_scaler.std.fill_(100)
    registry.publish("broken", broken.save)
    return registry


def config(name, **changes):
    return ServeConfig(
        model=name, **{"port": 0, "max_rows": MAX_ROWS, "max_body_bytes": MAX_BODY} | changes
    )


@pytest.fixture(scope="module", params=["process", "replicas"])
def url(request, registry):
    """What every test of the protocol asks: the one process, and Ray Serve before two."""
    if request.param == "process":
        with running_server(config("arm"), registry.root) as url:
            yield url
    else:
        with running_replicas(config("arm", replicas=2), registry.root) as url:
            yield url


@pytest.fixture(scope="module")
def http():
    with httpx.Client(trust_env=False) as http:
        yield http


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


@contextmanager
def service_of(registry, **changes):
    with Service(config("arm", **changes), registry.root) as service:
        yield service


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


@pytest.mark.parametrize("datatype", ["INT64", "INT32"])
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)])
def test_discrete_actions_and_some_target_columns(
    registry, discrete_model, http, rows, datatype, shape
):
    choices = np.arange(ROWS) % 3 + 1
    with running_server(config("walk"), registry.root) as url:
        body = {
            "inputs": [
                tensor("observation", rows[0]),
                tensor("action", choices.reshape(shape), datatype=datatype),
            ]
        }
        answer = ask(http, url, body, name="walk").json()
        metadata = http.get(f"{url}/v2/models/walk").json()
        wrong = ask(
            http,
            url,
            {"inputs": [tensor("observation", rows[0]), tensor("action", rows[1])]},
            "walk",
        )
        outside = ask(
            http,
            url,
            {
                "inputs": [
                    tensor("observation", rows[0]),
                    tensor("action", choices - 1, datatype="INT64"),
                ]
            },
            "walk",
        )
    mean = discrete_model.predict(rows[0], choices).mean.numpy()
    np.testing.assert_array_equal(np.float32(answer["outputs"][0]["data"]), mean.ravel())
    assert answer["outputs"][0]["shape"] == [ROWS, 2]
    assert metadata["inputs"][1] == {"name": "action", "datatype": "INT64", "shape": [-1]}
    assert metadata["parameters"]["target_columns"] == [3, 1]
    assert "action: expected datatype INT64" in wrong.json()["error"]
    assert "action: expected integers 1 to 3, got 0 to 2" in outside.json()["error"]


def tensor(name, values, **changes):
    document = {"name": name, "datatype": "FP32", "shape": list(np.shape(values))}
    return document | {"data": np.asarray(values).tolist()} | changes


def ask(http, url, body, name="arm", **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(f"{url}/v2/models/{name}/infer", content=content, **options)


OBSERVATION, ACTION = tensor("observation", np.zeros((2, 5))), tensor("action", np.zeros((2, 2)))
BINARY = {"name": "observation", "datatype": "FP32", "shape": [1, 5]}
GOOD = {"inputs": [OBSERVATION, ACTION]}

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


@pytest.mark.parametrize(
    ("body", "length", "status", "names"), BAD_REQUESTS.values(), ids=BAD_REQUESTS
)
def test_bad_requests(http, url, body, length, status, names):
    headers = {} if length is None else {HEADER_LENGTH: length}
    answer = ask(http, url, body, headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert names in answer.json()["error"]


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
            b"POST /v2/models/arm/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
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


def test_nan_never_leaves(http, registry):
    with running_server(config("broken"), registry.root) as url:
        for outputs in (
            [],
            [{"name": "next_observation_mean", "parameters": {"binary_data": True}}],
        ):
            answer = ask(http, url, GOOD | {"outputs": outputs}, name="broken")
            assert answer.status_code == 500
            assert "next_observation_mean: expected finite values" in answer.json()["error"]


def call(app, path, method="GET", **options):
    async def send():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def test_ready_only_after_warm_up(registry):
    with service_of(registry) as service:
        app = create_app(service)
        assert call(app, "/v2/health/live").status_code == 200
        for path in ("/v2/health/ready", "/v2/models/arm/ready", "/v2/models/arm/versions/2/ready"):
            answer = call(app, path)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert "warming up" in answer.json()["error"]
        service.warm_up()
        assert call(app, "/v2/health/ready").json() == {"ready": True}
        service.is_draining = True
        assert call(app, "/v2/health/ready").status_code == 503


def test_unbounded_actions_are_described(tmp_path, make_model):
    space = BoxSpace(low=(-1, -np.inf), high=(1, np.inf))
    Registry(tmp_path).publish("arm", make_model(space, (0,)).save)
    with service_of(Registry(tmp_path)) as service:
        service.warm_up()
        answer = call(create_app(service), "/v2/models/arm")
    assert answer.json()["parameters"]["action_space"]["high"] == [1, "Infinity"]
    assert ModelMetadata.model_validate_json(answer.content).parameters.action_space == space


def test_faults_of_the_server_do_not_show_its_insides(registry, monkeypatch):
    def fail(*_):
        raise RuntimeError("secret /path")

    with service_of(registry) as service:
        service.warm_up()
        monkeypatch.setattr(LoadedModel, "compute", fail)
        answer = call(create_app(service), "/v2/models/arm/infer", "POST", content=json.dumps(GOOD))
    assert answer.status_code == 500
    assert list(answer.json()) == ["error"]
    assert "secret" not in answer.text


def test_only_what_is_asked_for_is_computed(model, rows, monkeypatch):
    loaded = LoadedModel("arm", "1", model)
    monkeypatch.setattr(Prediction, "epistemic", None)
    outputs = [OUTPUTS["mean"], OUTPUTS["variance"], OUTPUTS["aleatoric"]]
    assert list(loaded.compute(Inputs(*rows), outputs)) == outputs
    with pytest.raises(AttributeError):
        loaded.compute(Inputs(*rows), [OUTPUTS["epistemic"]])


def test_the_openapi_page_describes_the_bodies(http, url):
    page = http.get(f"{url}/openapi.json").json()
    infer = page["paths"]["/v2/models/{name}/versions/{version}/infer"]["post"]
    assert [parameter["name"] for parameter in infer["parameters"]] == ["name", "version"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    references = set(_references(page))
    assert "#/components/schemas/RequestDocument" in references
    for reference in references:
        assert reference.rpartition("/")[2] in page["components"]["schemas"]
    assert "HTTPValidationError" not in str(page)


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


def test_the_page_needs_nothing_from_elsewhere(http, url):
    page = http.get(f"{url}/docs").text
    addresses = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(addresses) == 3
    for address in addresses:
        answer = http.get(url + address)
        assert answer.status_code == 200
        assert len(answer.content) > 1000


def _references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _references(child)


def test_port_in_use(registry):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InvalidInput, match=f"expected a free port .*127.0.0.1:{port} "),
            running_server(config("arm", port=port), registry.root),
        ):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "no host", "a" * 100, ""])
def test_hosts_to_refuse(registry, host):
    with (
        pytest.raises(InvalidInput) as caught,
        running_server(config("arm", host=host), registry.root),
    ):
        pass
    assert repr(host) in str(caught.value) or f"{host}:0" in str(caught.value)


def test_models_to_refuse(registry, tmp_path, make_model):
    with pytest.raises(NotFound, match="arm"), running_server(config("arn"), registry.root):
        pass
    truncated = Registry(tmp_path).publish(
        "arm", lambda folder: make_model(DiscreteSpace(n=2), (0,)).save(folder)
    )
    weights = truncated.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CorruptData, match="safetensors"), running_server(config("arm"), tmp_path):
        pass


def test_a_named_version_and_the_address_of_localhost(registry, http):
    with running_server(config("arm/1", host="localhost"), registry.root) as url:
        assert ask(http, url, GOOD).json()["model_version"] == "1"


SERVE = """
import sys
from pathlib import Path
from dynlearn.config import ServeConfig
from dynlearn_services.server import serve
serve(ServeConfig(model="arm", port=0), Path(sys.argv[1]), None, lambda url: print(url, flush=True))
"""


def test_signals_end_the_process_with_success(registry, http):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SERVE, registry.root],
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
