import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dynlearn.config.choices import Propagation
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.planning import estimate_returns


class Walk:
    """One member: the next observation is the observation plus the action."""

    members = 1
    device = torch.device("cpu")

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        return observation + action


class Cliff(Walk):
    """A walk whose state is not a number beyond 1."""

    def __init__(self, bad: float = math.nan):
        self.bad = bad

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        following = observation + action
        return torch.where(following > 1, self.bad, following)


def _weighted(
    observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor
) -> Tensor:
    """A reward that tells its four arguments apart."""
    return (
        observation[..., 0]
        + 10 * action[..., 0]
        + 100 * next_observation[..., 0]
        + 1000 * context[..., 0]
    )


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_a_return_is_the_discounted_sum_of_rewards_along_the_way(discount: float) -> None:
    start, goal = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]])
    actions = torch.tensor([[[[1.0], [2.0]]], [[[0.0], [-1.0]]]])
    found = estimate_returns(
        Walk(), _weighted, start, actions, goal, 1, "tsinf", 0.0, 0, discount=discount
    )
    first = (1 + 10 * 1 + 100 * 2 + 1000 * 3) + discount * (2 + 10 * 2 + 100 * 4 + 1000 * 3)
    second = (2 + 10 * 0 + 100 * 2 + 1000 * 4) + discount * (2 - 10 * 1 + 100 * 1 + 1000 * 4)
    assert found.mean.tolist() == found.score.tolist() == [[first], [second]]
    assert found.std.tolist() == [[0], [0]]


@pytest.mark.parametrize("chunk_rows", [1, 12, 1024])
@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "moment_matching", "expectation"])
@pytest.mark.parametrize("risk", [0.0, 0.5])
def test_a_return_is_the_mean_over_the_particles_of_the_rollout_less_the_risk(
    make_model: Callable[..., DynamicsModel],
    propagation: Propagation,
    risk: float,
    chunk_rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dynlearn.rollout.imagination._CHUNK_ROWS", chunk_rows)
    model = make_model()
    rng = np.random.default_rng(0)
    start = torch.from_numpy(rng.normal(size=(2, 3))).float()
    actions = torch.from_numpy(rng.normal(size=(2, 4, 5, 2))).float()
    goal = torch.from_numpy(rng.normal(size=(2, 1))).float()
    found = estimate_returns(
        model, _weighted, start, actions, goal, 6, propagation, risk, 0, discount=0.9
    )
    particles = model.rollout(start, actions, 6, propagation, seed=0).particles
    for s, p in np.ndindex(2, 4):
        totals = []
        for trajectory in particles[s, p]:
            before, total, weight = start[s], 0.0, 1.0
            for action, after in zip(actions[s, p], trajectory, strict=True):
                total += weight * float(_weighted(before, action, after, goal[s]))
                before, weight = after, 0.9 * weight
            totals.append(total)
        assert float(found.mean[s, p]) == pytest.approx(np.mean(totals), rel=1e-4)
        assert float(found.std[s, p]) == pytest.approx(np.std(totals), rel=1e-3, abs=1e-2)
        expected = np.mean(totals) - risk * np.std(totals)
        assert float(found.score[s, p]) == pytest.approx(expected, rel=1e-4)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made, but for views of one that is given."""

    def __init__(self, given: Tensor):
        super().__init__()
        self.given = given.untyped_storage().data_ptr()
        self.elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else [made]:
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() != self.given:
                self.elements = max(self.elements, tensor.numel())
        return made


def test_no_tensor_grows_with_candidates_times_particles(
    make_model: Callable[..., DynamicsModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 400 candidates and 10 particles for 6 steps; at most 80 of the 4000 rows at once."""
    monkeypatch.setattr("dynlearn.rollout.imagination._CHUNK_ROWS", 40)
    start, actions = torch.zeros(2, 3), torch.zeros(2, 200, 6, 2)
    for propagation in ("ts1", "tsinf", "moment_matching", "expectation"):
        with Largest(actions) as largest:
            estimate_returns(
                make_model(), _weighted, start, actions, start[:, :1], 10, propagation, 0.0, 0
            )
        # A layer of three members of eight units, the noise of all steps, or the bounded actions.
        assert 80 * 8 <= largest.elements <= max(81 * 3 * 8, actions.numel()) < 4000 * 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_state_that_is_not_finite_is_worth_nothing_whatever_the_reward_makes_of_it(
    bad: float,
) -> None:
    """A sparse reward -(distance > tolerance) takes NaN for a success."""

    def blind(
        observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor
    ) -> Tensor:
        return -((next_observation - context).abs()[..., 0] > 0.5).float().nan_to_num()

    def inverted(
        observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor
    ) -> Tensor:
        return -((next_observation - context).abs()[..., 0] < 0.5).float()

    start, actions = torch.zeros(1, 1), torch.tensor([[[[2.0]], [[0.0]]]])
    for reward in (blind, inverted):
        found = estimate_returns(Cliff(bad), reward, start, actions, start + 1, 3, "ts1", 0.0, 0)
        assert found.score[0, 0] == found.mean[0, 0] == -math.inf
        assert found.std.tolist() == [[0, 0]]
        assert float(found.score[0, 1]) == (-1 if reward is blind else 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_worth_nothing(bad: float) -> None:
    def reward(
        observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor
    ) -> Tensor:
        return torch.where(action > 0, bad, -7.0)[..., 0]

    actions = torch.tensor([[[[1.0]], [[0.0]]]])
    start = torch.zeros(1, 1)
    found = estimate_returns(Walk(), reward, start, actions, start, 2, "tsinf", 1.0, 0)
    assert found.score.tolist() == found.mean.tolist() == [[-math.inf, -7.0]]
    assert found.std.tolist() == [[0, 0]]
