from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dynlearn.data.episodes import Episode, EpisodeTable
from dynlearn.errors import CorruptData


def episode(index: int, steps: int, **changes: Any) -> Episode:
    """Count: observation t of episode i is (100 i + t, -(100 i + t))."""
    count = 100.0 * index + np.arange(steps + 1)
    arrays: dict[str, Any] = {
        "observations": np.stack([count, -count], axis=1).astype(np.float32),
        "actions": count[:-1, None].astype(np.float32),
        "rewards": count[:-1].copy(),
        "terminated": np.zeros(steps, dtype=bool),
        "truncated": np.arange(steps) == steps - 1,
    }
    return Episode(index, index + 7, **(arrays | changes))


def test_a_table_lays_episodes_end_to_end_and_gives_them_back() -> None:
    episodes = [episode(0, 2), episode(1, 1), episode(2, 3)]
    table = EpisodeTable.of(episodes)
    assert (len(table), table.steps) == (3, 6)
    assert table.lengths.tolist() == [2, 1, 3]
    assert table.seeds.tolist() == [7, 8, 9]
    assert table.observations[:, 0].tolist() == [0, 1, 2, 100, 101, 200, 201, 202, 203]
    assert table.rewards.tolist() == [0, 1, 100, 200, 201, 202]
    for one, again in zip(episodes, table, strict=True):
        assert (one.index, one.seed, len(one)) == (again.index, again.seed, len(again))
        np.testing.assert_array_equal(one.observations, again.observations)
        np.testing.assert_array_equal(one.truncated, again.truncated)


def test_select_takes_episodes_in_any_order() -> None:
    table = EpisodeTable.of([episode(0, 2), episode(1, 1), episode(2, 3)]).select([2, 0])
    assert table.indices.tolist() == [2, 0]
    assert table.observations[:, 0].tolist() == [200, 201, 202, 203, 0, 1, 2]
    assert table.actions[:, 0].tolist() == [200, 201, 202, 0, 1]


def test_an_unknown_seed_and_goals_survive_a_table() -> None:
    goals = np.arange(3.0)[:, None]
    with_goals = episode(0, 2, achieved_goals=goals, desired_goals=goals + 5)
    table = EpisodeTable.of([replace(with_goals, seed=None)])
    (again,) = table
    assert again.seed is None
    assert again.desired_goals is not None
    assert again.desired_goals[:, 0].tolist() == [5, 6, 7]


def test_digests_tell_episodes_apart_and_not_their_place_in_a_table() -> None:
    table = EpisodeTable.of([episode(0, 2), episode(1, 2)])
    digests = table.digests()
    assert digests[0] != digests[1]
    assert table.select([1]).digests() == [digests[1]]
    assert EpisodeTable.of([replace(episode(1, 2), seed=None)]).digests() != [digests[1]]
    rewards = np.array([100.0, np.nextafter(101.0, 102.0)])
    assert EpisodeTable.of([episode(1, 2, rewards=rewards)]).digests() != [digests[1]]
    doubles = episode(1, 2).observations.astype(np.float64)
    assert EpisodeTable.of([episode(1, 2, observations=doubles)]).digests() != [digests[1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((2, 2))}, "expected 3 rows of observations in episode 4, got 2"),
        ({"actions": np.zeros((2,))}, r"actions of episode 4 as numbers \[T, A\] or int64 \[T\]"),
        ({"rewards": np.zeros(2, dtype=np.float32)}, "rewards of episode 4 as float64"),
        ({"terminated": np.zeros(2)}, "terminated of episode 4 as bool"),
        ({"observations": np.zeros(3)}, "observations of episode 4 as numbers"),
        ({"rewards": np.array([0.0, np.inf])}, "rewards of episode 4, got inf in row 1"),
        ({"achieved_goals": np.zeros((3, 1))}, "both goals or neither in episode 4"),
    ],
)
def test_a_misshapen_episode_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CorruptData, match=message):
        episode(4, 2, **changes)


def test_an_episode_without_steps_is_refused() -> None:
    with pytest.raises(CorruptData, match="at least one step in episode 3"):
        episode(3, 0)


def test_nan_is_named_by_episode_array_and_row() -> None:
    table = EpisodeTable.of([episode(0, 2), episode(1, 1), episode(2, 3)])
    table.observations[7, 1] = np.nan
    with pytest.raises(CorruptData, match="observations of episode 2, got nan in row 2"):
        table.check()


def test_finite_numbers_whose_sum_overflows_are_fine() -> None:
    largest = np.full((3, 2), np.finfo(np.float32).max)
    assert len(episode(0, 2, observations=largest)) == 2


def test_episodes_of_different_columns_do_not_go_together() -> None:
    wider = episode(1, 2, actions=np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(CorruptData, match=r"got .*actions float32\[3\].* in episode 1"):
        EpisodeTable.of([episode(0, 2), wider])
