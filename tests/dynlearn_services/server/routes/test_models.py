import numpy as np

from dynlearn.config import ServeConfig
from dynlearn.protocol.metadata import Limits, ModelMetadata
from dynlearn.registry import Registry
from dynlearn.spaces import BoxSpace
from dynlearn_services.server.app import create_app
from dynlearn_services.server.service import Service


def config(name="arm", **changes):
    return ServeConfig(model=name, **{"port": 0} | changes)


def service_of(registry, **changes):
    return Service(config("arm", **changes), registry.root)


def test_unbounded_actions_are_described(tmp_path, make_model, call):
    space = BoxSpace(low=(-1, -np.inf), high=(1, np.inf))
    Registry(tmp_path).publish("arm", make_model(space, (0,)).save)
    with service_of(Registry(tmp_path)) as service:
        service.warm_up()
        answer = call(create_app(service), "/v2/models/arm")
    assert answer.json()["parameters"]["action_space"]["high"] == [1, "Infinity"]
    assert ModelMetadata.model_validate_json(answer.content).parameters.action_space == space


def test_the_limits_are_stated(walking, call):
    with service_of(walking, max_rows=5, max_body_bytes=600, max_answer_bytes=7000) as service:
        service.warm_up()
        answer = call(create_app(service), "/v2/models/arm/versions/1")
    limits = ModelMetadata.model_validate_json(answer.content).parameters.limits
    assert limits == Limits(
        max_rows=5, max_row_steps=20_000_000, max_body_bytes=600, max_answer_bytes=7000
    )
    # A server of before says nothing.
    described = answer.json()
    del described["parameters"]["limits"]
    assert ModelMetadata.model_validate(described).parameters.limits is None
