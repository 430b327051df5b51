import asyncio
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest
import torch

from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.registry import Registry
from dynlearn.spaces import ActionSpace, BoxSpace, DiscreteSpace, ObservationSpace
from dynlearn_services.server.inference.thread import Inference
from dynlearn_services.server.metrics import Metrics

MakeModel = Callable[..., DynamicsModel]


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Five observation columns in, ``targets`` of them out, three members, random weights."""

    def make(
        action_space: ActionSpace | None = None, targets: tuple[int, ...] = (0, 1, 2, 3, 4), seed=0
    ) -> DynamicsModel:
        observation = BoxSpace(low=(-1,) * 5, high=(1,) * 5)
        spec = ModelSpec(
            observation_space=ObservationSpace(observation=observation),
            action_space=action_space or BoxSpace(low=(-1, -1), high=(1, 2)),
            observation_columns=tuple(range(5)),
            target_columns=targets,
            members=3,
            hidden=(16, 16),
        )
        model = DynamicsModel(spec)
        generators = [torch.Generator().manual_seed(3 * seed + member) for member in range(3)]
        model.regressor.network.initialize("lecun_uniform", generators)
        return model

    return make


@pytest.fixture(scope="session")
def draw_rows() -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Observations and actions within bounds."""

    def draw(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        draws = np.random.default_rng(seed)
        observation, action = draws.normal(size=(count, 5)), draws.uniform(-1, 1, (count, 2))
        return observation.astype("f4"), action.astype("f4")

    return draw


@pytest.fixture
def arm(tmp_path, make_model) -> Registry:
    """A registry with versions 1 and 2 of one model."""
    registry = Registry(tmp_path / "models")
    for seed in (1, 2):
        registry.publish("arm", make_model(seed=seed).save)
    return registry


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def inference(metrics) -> Iterator[Inference]:
    inference = Inference(threads=1, max_pending=8, batch_rows=100, batch_wait=0.0, metrics=metrics)
    yield inference
    inference.close()


@pytest.fixture(scope="session")
def walking(tmp_path_factory, make_model) -> Registry:
    """A registry with models of continuous and of discrete actions, and one that gives no numbers.

    Of ``arm`` there are versions 1 and 2, the latter of seed 0; ``walk`` predicts two columns.
    """
    registry = Registry(tmp_path_factory.mktemp("models"))
    registry.publish("arm", make_model(seed=1).save)
    registry.publish("arm", make_model().save)
    registry.publish("walk", make_model(DiscreteSpace(n=3, start=1), (3, 1)).save)
    broken = make_model()
    with torch.no_grad():
        broken.regressor.network.perceptrons[0][-1].bias.fill_(3e38)
        broken.regressor.target_scaler.std.fill_(100)
    registry.publish("broken", broken.save)
    return registry


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """A client that asks no proxy."""
    with httpx.Client(trust_env=False) as http:
        yield http


@pytest.fixture(scope="session")
def call() -> Callable[..., httpx.Response]:
    """Ask an application in this process, without a socket."""

    def ask(app, path, method="GET", **options) -> httpx.Response:
        async def send():
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost"
            ) as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    return ask
