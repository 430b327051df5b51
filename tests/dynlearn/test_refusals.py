"""What is refused in process, as it is over HTTP, and never taken for something else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dynlearn.config import PlannerConfig, TrainConfig
from dynlearn.errors import InvalidInput
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.planning import CEM, Estimator
from dynlearn.spaces import BoxSpace

ROWS, PLANS = np.zeros((2, 3)), np.zeros((2, 3, 4, 2))
MakeModel = Callable[..., DynamicsModel]


@pytest.mark.parametrize(
    "member",
    [[1.7, 0.2], [1.0, 0.0], [True, False], [1, True], np.array([1.7, 0]), torch.tensor([1.7, 0])],
)
def test_members_are_integers(make_model: MakeModel, member: Any) -> None:
    with pytest.raises(InvalidInput, match="member: expected integers"):
        make_model().predict(ROWS, ROWS[:, :2], member=member)


@pytest.mark.parametrize(
    "member", [[1, 0], (1, 0), np.array([1, 0], np.uint8), np.array([[1], [0]])]
)
def test_members_in_every_form(make_model: MakeModel, member: Any) -> None:
    model = make_model()
    found = model.predict(ROWS, ROWS[:, :2], member=member).mean
    expected = model.predict(ROWS, ROWS[:, :2], member=torch.tensor([1, 0])).mean
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "values",
    [
        ROWS.astype(bool),
        torch.zeros(2, 3, dtype=torch.bool),
        [[0.0, True, 1.0]] * 2,
        ROWS.astype(str),
        [["0", "1", "2"]] * 2,
        ROWS.astype(complex),
        torch.zeros(2, 3, dtype=torch.complex64),
        np.full((2, 3), None),
        [[0.0], [1.0, 2.0, 3.0]],
    ],
)
def test_observations_and_actions_are_numbers(make_model: MakeModel, values: Any) -> None:
    model = make_model(actions=3)
    with pytest.raises(InvalidInput, match="expected an array of numbers, got"):
        model.predict(values, ROWS)
    with pytest.raises(InvalidInput, match="expected an array of numbers, got"):
        model.sample(ROWS, values, seed=0)


@pytest.mark.parametrize("seed", [True, -1, 1.0, float("nan"), "1", None, 2**63])
def test_seeds_are_whole_numbers(make_model: MakeModel, seed: Any) -> None:
    with pytest.raises(InvalidInput, match="seed: expected an integer from 0"):
        make_model().sample(ROWS, ROWS[:, :2], seed=seed)
    with pytest.raises(InvalidInput, match="seed: expected an integer from 0"):
        make_model().rollout(ROWS, PLANS, seed=seed)


@pytest.mark.parametrize("particles", [True, 0, -1, 2.5, "2", None])
def test_particles_are_whole_numbers(make_model: MakeModel, particles: Any) -> None:
    with pytest.raises(InvalidInput, match="particles: expected an integer of at least 1"):
        make_model().rollout(ROWS, PLANS, particles)
    with pytest.raises(InvalidInput, match="particles: expected an integer of at least 1"):
        Estimator(make_model(), "dense", particles)


def test_a_propagation_that_is_none(make_model: MakeModel) -> None:
    """It was taken for ts1."""
    with pytest.raises(InvalidInput, match=r"propagation: expected one of .*tsinf.*, got 'ts3'"):
        make_model().rollout(ROWS, PLANS, 2, "ts3")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"discount": 1.5},
        {"discount": -1},
        {"discount": True},
        {"discount": float("nan")},
        {"risk_aversion": -0.5},
        {"risk_aversion": float("inf")},
        {"risk_aversion": float("nan")},
    ],
)
def test_discount_and_risk(make_model: MakeModel, options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(InvalidInput, match=f"{name}: expected a number from 0 to"):
        Estimator(make_model(), "dense", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps_left", [0, -1, True, 2.0, "2"])
def test_steps_left(make_model: MakeModel, steps_left: Any) -> None:
    estimator = Estimator(make_model(), lambda o, a, n, c: n.sum(-1), particles=3)
    settings = PlannerConfig(candidates=4, elites=2, iterations=1, horizon=3)
    planner = CEM(estimator, BoxSpace(low=(-1, -1), high=(1, 1)), settings)
    start = torch.zeros(1, 3)
    with pytest.raises(InvalidInput, match="steps_left: expected an integer of at least 1"):
        planner.plan(start, start[:, :0], steps_left)
    for left in (1, np.int64(2), None, 99):
        assert planner.plan(start, start[:, :0], left).shape == (1, 2)


@pytest.mark.parametrize("members", [[], [3], [-1], [1.0], [True]])
def test_a_subset_has_members(make_model: MakeModel, members: Any) -> None:
    with pytest.raises(InvalidInput, match="members: expected"):
        make_model().subset(members)


@pytest.mark.parametrize("name", ["target_columns", "observation_columns"])
def test_no_columns_are_not_all(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        TrainConfig(dataset="data", model="model", **{name: ()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"members": True},
        {"learning_rate": True},
        {"seed": False},
        {"hidden": (True,)},
        {"target_columns": [True]},
        {"members": 2.5},
    ],
)
def test_flags_and_fractions_are_no_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TrainConfig(dataset="data", model="model", **options)
    assert TrainConfig(dataset="data", model="model", learn_reward=True).learn_reward
