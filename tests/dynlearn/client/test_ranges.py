"""What a model answers in process it answers over HTTP: far from zero, and beyond its actions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dynlearn.client import DynamicsClient
from dynlearn.config import ServeConfig
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.planning.remote import RemoteDynamics
from dynlearn.registry import Registry
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn_services.server import running_server

PLACE = np.array([[5e5, 5.4e6], [5e5 + 0.1, 5.4e6 - 0.01]])


@pytest.fixture(scope="module")
def far() -> DynamicsModel:
    """Moves by an action, of up to three in a space of up to one, and hardly errs."""
    unbounded = BoxSpace(low=(-np.inf,) * 2, high=(np.inf,) * 2, dtype="float64")
    spec = ModelSpec(
        observation_space=ObservationSpace(observation=unbounded),
        action_space=BoxSpace(low=(-1, -1), high=(1, 1)),
        observation_columns=(0, 1),
        target_columns=(0, 1),
        members=2,
        hidden=(),
        origin=(5e5, 5.4e6),
        action_range=((-3, -1), (3, 1)),
    )
    model = DynamicsModel(spec)
    with torch.no_grad():
        layer = model.regressor.network.perceptrons[0][0]
        layer.weight[:, 2:, :2] = torch.eye(2)
        layer.bias[..., 2:] = -8
        layer.bias[1, 0, 0] = 0.001
    return model


@pytest.fixture(scope="module")
def client(
    far: DynamicsModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DynamicsClient]:
    models: Path = tmp_path_factory.mktemp("models")
    Registry(models).publish("far", far.save)
    with (
        running_server(ServeConfig(model="far", port=0), models) as url,
        DynamicsClient(url, "far") as client,
    ):
        yield client


@pytest.mark.parametrize("action", [[0.05, -0.01], [2.5, 0.5], [5.0, -7.0]])
def test_predictions_are_the_same_both_ways(
    far: DynamicsModel, client: DynamicsClient, action: list[float]
) -> None:
    bounded = np.clip(action, [-3, -1], [3, 1])
    for observation in (PLACE, PLACE.tolist()):
        here, there = (
            far.predict(observation, [action] * 2),
            client.predict(observation, [action] * 2),
        )
        assert there.mean.dtype == np.float64
        np.testing.assert_allclose(
            there.mean - PLACE, bounded + np.array([[0.0005, 0]] * 2), atol=1e-6
        )
        np.testing.assert_array_equal(there.mean, here.mean)
        assert there.variance.dtype == np.float32
        np.testing.assert_allclose(there.variance, here.variance, rtol=1e-6)
    members = client.predict(PLACE, [action] * 2, outputs=("member_means",)).member_means
    np.testing.assert_array_equal(members, far.predict(PLACE, [action] * 2).member_means)


def test_samples_and_rollouts_are_the_same_both_ways(
    far: DynamicsModel, client: DynamicsClient
) -> None:
    actions = np.full((2, 3, 4, 2), 2.0, np.float32)
    here, member = far.sample(PLACE, actions[:, 0, 0], seed=3)
    there = client.sample(PLACE, actions[:, 0, 0], seed=3)
    np.testing.assert_array_equal(there.value, here)
    np.testing.assert_array_equal(there.member, member)
    imagined = far.rollout(PLACE, actions, particles=4, seed=1).particles
    served = client.rollout(PLACE, actions, 4, seed=1, outputs=("particles",)).particles
    np.testing.assert_array_equal(served, imagined)
    step = RemoteDynamics(client).step(
        torch.from_numpy(PLACE), torch.full((2, 2), 0.05), None, None
    )
    np.testing.assert_allclose(step.numpy() - PLACE, 0.05, atol=1e-3)


def test_it_says_what_it_takes(client: DynamicsClient) -> None:
    assert client.spec.observation_datatype == "FP64"
