"""Whoever gets a tensor from a public call may write into it, and use it where gradients are."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from dynlearn.config import PlannerConfig
from dynlearn.config.choices import Propagation
from dynlearn.distributions.mixture import Prediction
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.reward import LearnedReward, reward_spec
from dynlearn.planning import CEM, Estimator, estimate_returns
from dynlearn.protocol.names import OUTPUTS, ROLLOUT_OUTPUTS
from dynlearn.rollout.trajectory import Trajectory
from dynlearn.spaces import BoxSpace

OBSERVATION, ACTION = torch.rand(4, 3), torch.rand(4, 2)
# Enough sequences for several threads.
START, PLANS, GOAL = torch.rand(2, 3), torch.rand(2, 3, 5, 2), torch.rand(2, 1)
PROPAGATIONS: tuple[Propagation, ...] = get_args(Propagation)

Tensors = Mapping[str, Tensor]


def _reward() -> LearnedReward:
    """What a transition of three columns is worth to a goal of one."""
    regressor = EnsembleRegressor(reward_spec(9, (8,), "silu"))
    regressor.network.initialize("lecun_uniform", [torch.Generator().manual_seed(0)])
    return LearnedReward(regressor, observation_size=3, action_size=2)


def _of_prediction(prediction: Prediction) -> Tensors:
    parts = {f"members.{name}": value for name, value in vars(prediction.members).items()}
    return parts | {name: getattr(prediction, name) for name in (*OUTPUTS, "std")}


def _of_trajectory(trajectory: Trajectory) -> Tensors:
    names = [name for name in ROLLOUT_OUTPUTS if hasattr(trajectory, name)]
    return {name: getattr(trajectory, name) for name in names}


def _calls(model: DynamicsModel) -> Iterator[Callable[[], Tensors | Iterable[Tensor]]]:
    yield lambda: _of_prediction(model.predict(OBSERVATION, ACTION))
    yield lambda: _of_prediction(model.predict(OBSERVATION, ACTION, member=[0, 1, 2, 0]))
    yield lambda: model.sample(OBSERVATION, ACTION, seed=0)
    yield lambda: [model.step(OBSERVATION, ACTION, None, None)]
    yield lambda: [model.step(OBSERVATION, ACTION, torch.arange(4) % 3, OBSERVATION)]
    yield lambda: [model.step_groups(OBSERVATION.expand(3, 4, 3), ACTION.expand(3, 4, 2))]


def _imagining(
    model: DynamicsModel, propagation: Propagation
) -> Iterator[Callable[[], Tensors | Iterable[Tensor]]]:
    reward = _reward()
    arguments = 6, propagation, 0.5, 0
    yield lambda: _of_trajectory(model.rollout(START, PLANS, 6, propagation))
    yield lambda: estimate_returns(model, reward, START, PLANS, GOAL, *arguments)
    estimator = Estimator(model, reward, 6, propagation)
    settings = PlannerConfig(candidates=4, elites=2, iterations=2, horizon=3)
    planner = CEM(estimator, BoxSpace(low=(-1, -1), high=(1, 1)), settings)
    yield lambda: [planner.plan(START, GOAL)]
    yield lambda: [reward(START, PLANS[:, 0, 0], START, GOAL)]


def _copies(found: Tensors | Iterable[Tensor]) -> list[Tensor]:
    return [value.clone() for value in _tensors(found)]


def _tensors(found: Tensors | Iterable[Tensor]) -> list[Tensor]:
    return list(found.values() if isinstance(found, Mapping) else found)


def _use(call: Callable[[], Tensors | Iterable[Tensor]]) -> None:
    for index, tensor in enumerate(_tensors(call())):
        assert not tensor.is_inference(), index
        if tensor.is_floating_point():
            layer = nn.Linear(tensor.shape[-1], 1, dtype=tensor.dtype)
            layer(tensor).sum().backward()
            assert layer.weight.grad is not None
    # Writing into what was given changes nothing of what is given next.
    for tensor in _tensors(call()):
        tensor.mul_(3).add_(1)


@pytest.mark.parametrize("head", ["mean", "variance", "std", "scale_tril", "student_t"])
def test_predictions_and_samples(make_model: Callable[..., DynamicsModel], head: str) -> None:
    for call in _calls(make_model(head=head)):
        before = _copies(call())
        _use(call)
        assert all(map(torch.equal, before, _tensors(call())))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("propagation", PROPAGATIONS)
def test_rollouts_returns_rewards_and_plans(
    make_model: Callable[..., DynamicsModel],
    propagation: Propagation,
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dynlearn.rollout.imagination._CHUNK_ROWS", 12)
    torch.set_num_threads(threads)
    try:
        for call in _imagining(make_model(), propagation):
            _use(call)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("threads", [1, 2])
def test_callers_may_be_in_inference_mode_themselves(
    make_model: Callable[..., DynamicsModel], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynlearn.rollout.imagination._CHUNK_ROWS", 12)
    torch.set_num_threads(threads)
    try:
        model = make_model()
        outside = model.rollout(START, PLANS, 6, "ts1").particles
        with torch.inference_mode():
            calls = [*_calls(model), *_imagining(model, "ts1")]
            assert all(tensor.is_inference() for call in calls for tensor in _tensors(call()))
            assert torch.equal(model.rollout(START, PLANS, 6, "ts1").particles, outside)
    finally:
        torch.set_num_threads(1)
