from pathlib import Path

import numpy as np
import pytest

from dynlearn.config import TrainConfig
from dynlearn.training.extras import _tell_of_sameness, reward_checkpoint, reward_config
from dynlearn.training.training_data import Samples


def test_its_fit_is_least_squares_whatever_the_dynamics_are_fitted_with() -> None:
    config = reward_config(
        TrainConfig(
            dataset="d", model="m", objective="trustable", covariance="full", hidden=(32, 32),
            max_updates=600, members=4, elites=2, workers=2,
        )
    )  # fmt: skip
    assert (config.objective.name, config.members, config.covariance) == ("mse", 1, "diagonal")
    assert (config.hidden, config.max_updates, config.seed) == ((32, 32), 600, 0)
    assert (config.elites, config.workers) == (None, 1)


def test_it_saves_beside_the_dynamics() -> None:
    assert reward_checkpoint(Path("runs/c.safetensors")) == Path("runs/c-reward.safetensors")


@pytest.mark.parametrize(("others", "is_told"), [(0, True), (1, True), (5, False), (50, False)])
def test_a_reward_that_is_nearly_always_the_same_is_told(
    others: int, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rewards = np.full((100, 1), -1.0)
    rewards[:others] = np.arange(others)[:, None]
    _tell_of_sameness(Samples(np.zeros((100, 3)), rewards, np.ones(1)))
    told = f"the reward of {100 - others}% of the transitions is -1: a planner finds little"
    assert (told in caplog.text) == is_told
    assert len(caplog.records) == is_told
