import numpy as np
import pytest

from dynlearn.training.extras import _tell_of_sameness
from dynlearn.training.training_data import Samples


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
