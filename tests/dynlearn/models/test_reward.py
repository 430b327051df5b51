from pathlib import Path

import numpy as np
import pytest
import torch

from dynlearn.config import TrainConfig
from dynlearn.data.episodes import Episode, EpisodeTable
from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.evaluation.reward import reward_rmse
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.reward import LearnedReward, reward_spec
from dynlearn.models.spec import ModelSpec
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.training.extras import fit_reward, reward_samples
from dynlearn.training.fit import model_spec

PUSH = BoxSpace(low=(-1,), high=(1,))
CONFIG = TrainConfig(
    dataset="d",
    model="m",
    objective="trustable",
    covariance="full",
    hidden=(32, 32),
    max_updates=600,
    validate_every=100,
    learning_rate=1e-2,
    device="cpu",
)


def walks(episodes: int, seed: int, goals: bool = True) -> EpisodeTable:
    """Walks of a point on a line; the reward is 0 within 0.5 of the goal, else -1."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(episodes):
        action = rng.uniform(-1, 1, (10, 1)).astype(np.float32)
        place = np.concatenate([[[0.0]], np.cumsum(action, 0)]).astype(np.float32)
        goal = rng.uniform(-2, 2) if goals else 1.0
        reward = np.where(np.abs(place[1:, 0] - goal) < 0.5, 0.0, -1.0)
        wanted = np.full_like(place, goal) if goals else None
        found.append(
            Episode(
                index=index,
                seed=index,
                observations=place,
                actions=action,
                rewards=reward,
                terminated=np.zeros(10, dtype=bool),
                truncated=np.zeros(10, dtype=bool),
                achieved_goals=place if goals else None,
                desired_goals=wanted,
            )
        )
    return EpisodeTable.of(found)


def learn(goals: bool = True) -> LearnedReward:
    line = ObservationSpace(observation=BoxSpace(low=(-np.inf,), high=(np.inf,)))
    spec = model_spec(CONFIG, line, PUSH)
    training, validation = (reward_samples(walks(*n, goals), spec) for n in ((300, 0), (30, 1)))
    reward = fit_reward(CONFIG, training, validation, spec)
    assert reward is not None
    return reward


@pytest.fixture(scope="module")
def reward() -> LearnedReward:
    return learn()


def test_a_sparse_reward_of_a_goal_is_learned(reward: LearnedReward) -> None:
    table = walks(50, 2)
    assert reward.context_size == 1
    assert reward_rmse(reward, table, PUSH) < 0.5 * table.rewards.std()
    place, zero = torch.arange(-2.0, 3.0)[:, None], torch.zeros(5, 1)
    found = reward(place, zero, place, zero)
    np.testing.assert_allclose(found, [-1, -1, 0, -1, -1], atol=0.3)


def test_any_batch_dimensions(reward: LearnedReward) -> None:
    draws = torch.Generator().manual_seed(0)
    before, action, after, goal = torch.randn(4, 2, 3, 5, 1, generator=draws)
    found = reward(before, action, after, goal)
    assert found.shape == (2, 3, 5)
    alone = reward(before[1, 2], action[1, 2], after[1, 2], goal[1, 2])
    torch.testing.assert_close(found[1, 2], alone)
    one = reward(before[1, 2, 3], action[1, 2, 3], after[1, 2, 3], goal[1, 2, 3])
    torch.testing.assert_close(found[1, 2, 3], one)


def test_without_a_goal_the_context_has_no_columns() -> None:
    reward = learn(goals=False)
    assert reward.context_size == 0
    assert reward_rmse(reward, walks(50, 2, goals=False), PUSH) < 0.25
    place, zero = torch.tensor([[0.0], [1.0], [2.0]]), torch.zeros(3, 1)
    found = reward(place, zero, place, torch.zeros(3, 0))
    np.testing.assert_allclose(found, [-1, 0, -1], atol=0.3)
    one = torch.ones(1, 1)
    with pytest.raises(InvalidInput, match="context: expected the goal, of 0 columns, got 1"):
        reward(one, one, one, one)


def dynamics(columns: int = 1, actions: int = 1, goal: bool = True) -> DynamicsModel:
    def box(size: int) -> BoxSpace:
        return BoxSpace(low=(-1,) * size, high=(1,) * size)

    every = tuple(range(columns))
    spec = ModelSpec(
        observation_space=ObservationSpace(observation=box(columns), goal=box(1) if goal else None),
        action_space=box(actions),
        observation_columns=every,
        target_columns=every,
        members=1,
        hidden=(4,),
    )
    return DynamicsModel(spec)


@pytest.mark.parametrize("other", [{"columns": 2}, {"actions": 2}, {"goal": False}])
def test_a_reward_of_other_dynamics_is_refused(
    reward: LearnedReward, tmp_path: Path, other: dict[str, int]
) -> None:
    reward.save(tmp_path)
    with pytest.raises(CorruptData, match="expected the reward of the dynamics"):
        LearnedReward.load(tmp_path, dynamics(**other))


def test_a_model_that_is_no_reward_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reward").mkdir()
    dynamics(columns=4).save(tmp_path / "reward")
    with pytest.raises(CorruptData, match="expected the last column, 3, as the one target"):
        LearnedReward.load(tmp_path, dynamics())


def test_episodes_without_the_goal_it_was_learned_on_are_refused(reward: LearnedReward) -> None:
    with pytest.raises(InvalidInput, match=r"goals of 1 columns.*got goals of 0"):
        reward_rmse(reward, walks(3, 0, goals=False), PUSH)


def test_it_is_saved_beside_the_dynamics(reward: LearnedReward, tmp_path: Path) -> None:
    model = dynamics()
    model.save(tmp_path)
    assert LearnedReward.load(tmp_path, model) is None
    reward.save(tmp_path)
    again = LearnedReward.load(tmp_path, model)
    assert again is not None
    assert again.nbytes == reward.nbytes > 1000
    one = torch.ones(1, 1)
    assert torch.equal(again(one, one, one, one), reward(one, one, one, one))


def test_what_it_takes_in_is_the_transition_then_the_goal_then_the_action() -> None:
    regressor = EnsembleRegressor(reward_spec(6, (), "relu"))
    with torch.no_grad():
        powers = 10.0 ** torch.arange(6)
        regressor.network.perceptrons[0][0].weight.copy_(powers.view(1, 6, 1))
        regressor.target_scaler.mean.fill_(0.5)
    reward = LearnedReward(regressor, observation_size=2, action_size=1)
    assert reward.context_size == 1
    parts = [torch.tensor([values]) for values in ([1.0, 2.0], [6.0], [3.0, 4.0], [5.0])]
    assert reward(*parts).tolist() == [654321.5]
    assert reward.deviations(np.array([[-3.0], [2.0]])) == 3
