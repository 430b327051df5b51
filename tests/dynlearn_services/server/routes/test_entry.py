from dynlearn.config import ServeConfig
from dynlearn_services.server.app import create_app
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.service import Service


def config(name="arm", **changes):
    return ServeConfig(model=name, **{"port": 0} | changes)


GOOD = {
    "inputs": [
        {"name": "observation", "datatype": "FP32", "shape": [1, 5], "data": [0] * 5},
        {"name": "action", "datatype": "FP32", "shape": [1, 2], "data": [0] * 2},
    ]
}


def service_of(registry, **changes):
    return Service(config("arm", **changes), registry.root)


def test_faults_of_the_server_do_not_show_its_insides(walking, call, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret /path")

    with service_of(walking) as service:
        service.warm_up()
        monkeypatch.setattr(LoadedModel, "compute", fail)
        answer = call(create_app(service), "/v2/models/arm/infer", "POST", json=GOOD)
    assert answer.status_code == 500
    assert list(answer.json()) == ["error"]
    assert "secret" not in answer.text
    # The log holds it.
    assert "secret /path" in caplog.text
