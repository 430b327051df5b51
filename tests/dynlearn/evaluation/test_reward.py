from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from dynlearn.data.episodes import EpisodeTable
from dynlearn.errors import InvalidInput
from dynlearn.evaluation.reward import reward_rmse
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.reward import LearnedReward, reward_spec
from dynlearn.spaces import BoxSpace

PUSH = BoxSpace(low=(-1,), high=(1,))


@pytest.fixture
def reward() -> LearnedReward:
    """What takes two observation columns, no goal and an action, and answers 2."""
    regressor = EnsembleRegressor(reward_spec(5, (), "relu"))
    with torch.no_grad():
        regressor.target_scaler.mean.fill_(2)
    return LearnedReward(regressor, observation_size=2, action_size=1)


def test_the_error_is_over_all_transitions(
    reward: LearnedReward,
    make_table: Callable[..., EpisodeTable],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = replace(make_table([2, 1]), rewards=np.array([3.0, 0.0, 4.0]))
    for chunk in (1, 2, 8):
        monkeypatch.setattr("dynlearn.evaluation.reward._CHUNK", chunk)
        assert reward_rmse(reward, table, PUSH) == pytest.approx(np.sqrt((1 + 4 + 4) / 3))


def test_episodes_with_another_goal_are_refused(
    reward: LearnedReward, make_table: Callable[..., EpisodeTable]
) -> None:
    goals = np.zeros((5, 3))
    table = replace(make_table([2, 1]), achieved_goals=goals, desired_goals=goals)
    with pytest.raises(InvalidInput, match=r"goals of 0 columns.*got goals of 3"):
        reward_rmse(reward, table, PUSH)
