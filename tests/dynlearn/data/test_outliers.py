from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.outliers import Outlier, describe_outliers, find_outliers

Maker = Callable[..., EpisodeTable]


def with_noise(make_table: Maker, **changes: Any) -> EpisodeTable:
    """Ten episodes of twenty steps, all numbers drawn from a normal distribution."""
    table, random = make_table([20] * 10), np.random.default_rng(0)
    names = ("observations", "actions", "rewards")
    drawn = {name: random.normal(size=getattr(table, name).shape) for name in names}
    return replace(table, **(drawn | changes))


def test_one_number_that_cannot_be_right_is_found(make_table: Maker) -> None:
    table = with_noise(make_table)
    assert find_outliers(table) == []
    table.observations[21 * 7 + 3, 1] = -1e29
    (found,) = find_outliers(table)
    assert (found.array, found.column, found.episode, found.rows) == ("observations", 1, 7, 1)
    assert found.value == -1e29
    assert 2 < found.usual < 4
    text = describe_outliers([found], ("x", "speed"))
    assert text.startswith(
        "expected numbers of one size in each column, got -1e+29 in speed of episode 7, where "
        "nearly all are within "
    )
    assert "(1 row of 1 column like that)" in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["actions", "rewards"])
def test_actions_and_rewards_are_looked_at_too(make_table: Maker, name: str) -> None:
    table = with_noise(make_table)
    getattr(table, name)[20 * 9] = 1e300
    (found,) = find_outliers(table)
    assert (found.array, found.episode) == (name, 9)
    assert f"got 1e+300 in {name[:-1]}[0] of episode 9" in describe_outliers([found], ("x", "y"))


def test_the_largest_numbers_that_there_are(make_table: Maker) -> None:
    table = with_noise(make_table)
    table.observations[:2, 0] = np.finfo(np.float64).max * np.array([1, -1])
    (found,) = find_outliers(table)
    assert found.rows == 2
    assert np.isfinite([found.value, found.median, found.usual]).all()


def test_columns_that_seldom_move_are_none(make_table: Maker) -> None:
    """An object at rest, pushed in one step of a hundred; a lamp that was lit once."""
    table = with_noise(make_table)
    table.observations[:] = 1e-6 * np.random.default_rng(1).normal(size=(210, 2))
    table.observations[100:105, 0] = 0.05
    table.observations[:, 1] = 0
    table.observations[100, 1] = 1
    assert find_outliers(table) == []


def test_a_constant_column_with_a_spike(make_table: Maker) -> None:
    table = with_noise(make_table)
    table.observations[:, 1] = 5.4e6
    assert find_outliers(table) == []
    table.observations[0, 1] = 1e12
    (found,) = find_outliers(table)
    assert (found.column, found.median) == (1, 5.4e6)


def test_discrete_actions_and_short_data_have_none(make_table: Maker) -> None:
    assert find_outliers(make_table([1])) == []
    assert find_outliers(make_table([30], choices=3)) == []


def test_the_worst_of_several_is_told() -> None:
    some = [
        Outlier("observations", 0, 4, 1e5, 0, 1, rows=2),
        Outlier("desired_goals", 1, 5, 1e9, 0, 1, rows=1),
    ]
    text = describe_outliers(some, ("x",))
    assert "got 1e+09 in desired_goal[1] of episode 5" in text
    assert "(3 rows of 2 columns like that)" in text
