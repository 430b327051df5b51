import errno

import pytest

from dynlearn.config import ServeConfig
from dynlearn.registry import Registry
from dynlearn_services.server.app import create_app
from dynlearn_services.server.service import Service


@pytest.fixture
def app(arm):
    with Service(ServeConfig(model="arm", port=0), arm.root) as service:
        service.warm_up()
        yield create_app(service)


def test_damage_is_the_servers_fault_and_no_answer_tells_where(arm, app, call, make_model):
    weights = arm.resolve("arm/1").folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    arm.publish("leg", make_model().save)
    (arm.resolve("leg").folder / "config.json").write_text("{}")
    asked = {
        "/v2/models/arm/versions/1": "GET",
        "/v2/models/arm/versions/1/ready": "GET",
        "/v2/models/arm/versions/1/infer": "POST",
        "/v1/models/arm/versions/1/rollout": "POST",
        "/v2/repository/models/leg/load": "POST",
    }
    for path, method in asked.items():
        answer = call(app, path, method)
        assert answer.status_code == 503, path
        assert "cannot be served" in answer.json()["error"]
        assert str(arm.root) not in answer.text
    index = call(app, "/v2/repository/index", "POST")
    assert str(arm.root) not in index.text
    reasons = {(each["name"], each["version"]): each["reason"] for each in index.json()}
    assert "expected model.safetensors as it was published" in reasons["arm", "1"]
    assert "cannot be served" in reasons["leg", "1"]
    assert call(app, "/v2/models/arm").status_code == 200


@pytest.mark.parametrize("what", ["names", "versions"])
def test_a_shortage_of_the_system_passes(app, call, monkeypatch, caplog, what):
    def fail(*_):
        raise OSError(errno.EMFILE, "Too many open files", "/secret")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, what, fail)
        for path, method in {"/v2/repository/index": "POST", "/v2/models/arm": "GET"}.items():
            answer = call(app, path, method)
            if answer.status_code != 200:
                assert answer.status_code == 503
                assert answer.headers["Retry-After"] == "1"
                assert "secret" not in answer.text
        assert call(app, "/v2/repository/index", "POST").status_code == 503
    assert "Traceback" not in caplog.text
    assert call(app, "/v2/repository/index", "POST").status_code == 200
