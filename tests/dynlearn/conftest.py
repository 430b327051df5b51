"""Small models and data that the tests of the library share, and a model's plain reference."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from dynlearn.data.episodes import Episode, EpisodeTable
from dynlearn.data.transitions import Transitions
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.spaces import BoxSpace, ObservationSpace

# The same examples every time, however slow the machine.
settings.register_profile("dynlearn", derandomize=True, deadline=None)
settings.load_profile("dynlearn")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Two threads gain nothing on products this small, and lose much beside other processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


MakeSpec = Callable[..., ModelSpec]
MakeModel = Callable[..., DynamicsModel]


def _box(size: int, bound: float = np.inf) -> BoxSpace:
    return BoxSpace(low=(-bound,) * size, high=(bound,) * size)


def _spec(observations: int = 3, actions: int = 2, **options: Any) -> ModelSpec:
    every = tuple(range(observations))
    return ModelSpec(
        **{
            "observation_space": ObservationSpace(observation=_box(observations)),
            "action_space": _box(actions, 10.0),
            "observation_columns": every,
            "target_columns": every,
            "members": 3,
            "hidden": (8, 8),
            "activation": "tanh",
            **options,
        }
    )


def _model(seed: int = 0, **options: Any) -> DynamicsModel:
    model = DynamicsModel(_spec(**options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.regressor.state_dict().items():
            if name == "least_std":
                continue
            draws = torch.randn(tensor.shape, generator=generator)
            positive = name.endswith(("std", "residual_variance"))
            tensor.copy_(draws.abs() + 0.5 if positive else 0.5 * draws)
    return model


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    """Return a maker of specs: of 3 observation and 2 action columns unless told otherwise."""
    return _spec


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """Return a maker of models with random weights, biases and scalers."""
    return _model


def _plain_covariance(
    spec: ModelSpec, raw: NDArray[np.float64], residual: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the covariance that a head's raw outputs stand for, by its formula."""

    def positive(
        raw: NDArray[np.float64], least: float, most: float, at_zero: float = 1.0
    ) -> NDArray[np.float64]:
        offset = np.log(np.expm1(at_zero - least))
        return np.clip(np.logaddexp(0, raw + offset) + least, least, most)

    size = len(spec.target_columns)
    if spec.head == "mean":
        return np.diag(residual)
    if spec.head == "variance":
        return np.diag(positive(raw, 1e-8, 100))
    if spec.head == "std":
        return np.diag(positive(raw, 1e-4, 100) ** 2)
    if spec.head == "scale_tril":
        deviation = positive(raw[:size], 1e-4, 100)
        factor = np.diag(deviation)
        # Row after row below the diagonal, in units of the row's deviation.
        places = [(row, column) for row in range(size) for column in range(row)]
        for (row, column), value in zip(places, raw[size:], strict=True):
            factor[row, column] = deviation[row] * value
        return factor @ factor.T
    concentration = np.minimum(np.logaddexp(0, raw[:size]) + 1.001, 1000)
    rate = positive(raw[size : 2 * size], 1e-11, 999_000, np.log(2) + 0.001)
    return np.diag(rate / (concentration - 1))


@pytest.fixture(scope="session")
def reference() -> Callable[..., tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return one member's mean and covariance of one row, by plain NumPy in float64."""

    def predict(
        model: DynamicsModel, member: int, observation: Any, action: Any
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        state = {name: t.double().numpy() for name, t in model.regressor.state_dict().items()}
        spec = model.spec
        observation = np.asarray(observation, dtype=np.float64)
        inputs = np.concatenate([observation[list(spec.observation_columns)], action])
        inputs = (inputs - state["input_scaler.mean"]) / state["input_scaler.std"]
        activate = {
            "relu": lambda x: np.maximum(x, 0),
            "tanh": np.tanh,
            "silu": lambda x: x / (1 + np.exp(-x)),
        }[spec.activation]

        def perceptron(index: int) -> NDArray[np.float64]:
            features = inputs
            for layer in range(len(spec.hidden) + 1):
                name = f"network.perceptrons.{index}.{layer}"
                features = activate(features) if layer else features
                weight, bias = (state[f"{name}.{part}"][member] for part in ("weight", "bias"))
                features = features @ weight + bias[0]
            return features

        raw = perceptron(0)
        if spec.separate_networks and spec.head != "mean":
            raw = np.concatenate([raw, perceptron(1)])
        size = len(spec.target_columns)
        residual = state["network.residual_variance"][member, 0]
        covariance = _plain_covariance(spec, raw[size:], residual)
        std = state["target_scaler.std"]
        mean = raw[:size] * std + state["target_scaler.mean"]
        for place, column in enumerate(spec.target_columns):
            if column not in spec.absolute_columns:
                mean[place] += observation[column]
        return mean, covariance * np.outer(std, std)

    return predict


@pytest.fixture(scope="session")
def make_transitions() -> Callable[..., Transitions]:
    """Return a maker of transitions of a noisy linear system, in episodes of ten steps."""

    def make(
        count: int, seed: int = 0, observations: int = 3, actions: int = 2, noise: float = 0.05
    ) -> Transitions:
        rng = np.random.default_rng(seed)
        observation = rng.normal(size=(count, observations)) * 3 + 5
        action = rng.uniform(-1, 1, size=(count, actions)).astype(np.float32)
        push = np.linspace(0.2, 1, observations * actions).reshape(actions, observations)
        change = action @ push - 0.1 * (observation - 5)
        change += noise * rng.normal(size=change.shape)
        episodes, rest = divmod(count, 10)
        lengths = np.array([10] * episodes + [rest] * (rest > 0), dtype=np.int64)
        return Transitions(observation, action, observation + change, lengths)

    return make


@pytest.fixture(scope="session")
def make_table() -> Callable[..., EpisodeTable]:
    """Return a maker of episodes of given lengths.

    Observation column c of step t of episode k is 1000 k + t + c / 10; the first action is the
    same without c, so that it is plain where a row came from.
    """

    def make(
        lengths: list[int], observations: int = 2, actions: int = 1, choices: int = 0
    ) -> EpisodeTable:
        episodes = []
        for index, length in enumerate(lengths):
            place = 1000.0 * index + np.arange(length + 1)
            columns = np.arange(observations) / 10
            action = np.repeat(place[:-1, None], actions, 1)
            episodes.append(
                Episode(
                    index=index,
                    seed=index,
                    observations=(place[:, None] + columns).astype(np.float32),
                    actions=np.arange(length) % choices if choices else action.astype(np.float32),
                    rewards=np.zeros(length),
                    terminated=np.zeros(length, dtype=bool),
                    truncated=np.zeros(length, dtype=bool),
                )
            )
        return EpisodeTable.of(episodes)

    return make
