import json

import numpy as np
import pytest

from dynlearn.config import ServeConfig
from dynlearn.spaces import DiscreteSpace
from dynlearn_services.server import running_server

ROWS = 7


def config(name="arm", **changes):
    return ServeConfig(model=name, **{"port": 0} | changes)


@pytest.fixture(scope="module")
def rows(draw_rows):
    return draw_rows(ROWS)


def tensor(name, values, **changes):
    document = {"name": name, "datatype": "FP32", "shape": list(np.shape(values))}
    return document | {"data": np.asarray(values).tolist()} | changes


def ask(http, url, body, name="arm", **options):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(f"{url}/v2/models/{name}/infer", content=content, **options)


@pytest.mark.parametrize("datatype", ["INT64", "INT32"])
@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)])
def test_discrete_actions_and_some_target_columns(walking, make_model, http, rows, datatype, shape):
    choices = np.arange(ROWS) % 3 + 1
    with running_server(config("walk"), walking.root) as url:
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
    mean = make_model(DiscreteSpace(n=3, start=1), (3, 1)).predict(rows[0], choices).mean.numpy()
    np.testing.assert_array_equal(np.float32(answer["outputs"][0]["data"]), mean.ravel())
    assert answer["outputs"][0]["shape"] == [ROWS, 2]
    assert metadata["inputs"][1] == {"name": "action", "datatype": "INT64", "shape": [-1]}
    assert metadata["parameters"]["target_columns"] == [3, 1]
    assert "action: expected integers" in wrong.json()["error"]
    assert "action: expected integers 1 to 3, got 0 to 2" in outside.json()["error"]


def test_nan_never_leaves(http, walking):
    inputs = [tensor("observation", np.zeros((2, 5))), tensor("action", np.zeros((2, 2)))]
    with running_server(config("broken"), walking.root) as url:
        for outputs in (
            [],
            [{"name": "next_observation_mean", "parameters": {"binary_data": True}}],
        ):
            answer = ask(http, url, {"inputs": inputs, "outputs": outputs}, name="broken")
            assert answer.status_code == 500
            assert "next_observation_mean: expected finite values" in answer.json()["error"]
