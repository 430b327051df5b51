from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.transitions import (
    cut_transitions,
    cut_windows,
    judged_transitions,
    split_episodes,
)
from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.spaces import BoxSpace, DiscreteSpace

MakeTable = Callable[..., EpisodeTable]
BOX = BoxSpace(low=(-1,), high=(1,))


def test_transitions_of_two_episodes(make_table: MakeTable) -> None:
    transitions = cut_transitions(make_table([2, 1]), BOX)
    assert transitions.observation[:, 0].tolist() == [0, 1, 1000]
    assert transitions.action[:, 0].tolist() == [0, 1, 1000]
    assert transitions.next_observation[:, 0].tolist() == [1, 2, 1001]
    assert transitions.lengths.tolist() == [2, 1]
    assert len(transitions) == 3
    assert transitions.observation.dtype == np.float32


@pytest.mark.parametrize("lengths", [[1], [3, 1, 1, 5], [1, 1]])
def test_no_transition_crosses_an_episode(make_table: MakeTable, lengths: list[int]) -> None:
    transitions = cut_transitions(make_table(lengths), BOX)
    assert len(transitions) == sum(lengths)
    moved = transitions.next_observation[:, 0] - transitions.observation[:, 0]
    np.testing.assert_array_equal(moved, 1)
    np.testing.assert_array_equal(transitions.observation[:, 0], transitions.action[:, 0])


def test_discrete_actions_become_one_hot(make_table: MakeTable) -> None:
    table = make_table([4], choices=3)
    table = replace(table, actions=table.actions + 5)
    transitions = cut_transitions(table, DiscreteSpace(n=3, start=5))
    assert transitions.action.dtype == np.float32
    assert transitions.action.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_a_choice_that_the_space_has_not_is_refused(make_table: MakeTable) -> None:
    with pytest.raises(InvalidInput, match="expected integers 0 to 1, got 0 to 2"):
        cut_transitions(make_table([4], choices=3), DiscreteSpace(n=2))


@pytest.mark.parametrize("choices", [0, 3])
def test_actions_of_the_other_kind_are_refused(make_table: MakeTable, choices: int) -> None:
    space = BOX if choices else DiscreteSpace(n=3)
    with pytest.raises(InvalidInput, match="use a dataset of the same environment"):
        cut_transitions(make_table([4], choices=choices), space)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["observations", "actions"])
def test_values_that_are_not_finite_are_refused(
    make_table: MakeTable, name: str, bad: float
) -> None:
    table = make_table([2, 2])
    values = getattr(table, name).copy()
    values[-1, 0] = bad
    with pytest.raises(CorruptData, match=f"expected finite {name}") as caught:
        cut_transitions(replace(table, **{name: values}), BOX)
    assert "\n" not in str(caught.value)


@given(
    episodes=st.integers(1, 200),
    validation=st.floats(0.01, 0.99),
    test=st.floats(0, 0.99),
    seed=st.integers(0, 2**32),
)
def test_a_split_deals_every_episode_out_once(
    episodes: int, validation: float, test: float, seed: int
) -> None:
    try:
        split = split_episodes(episodes, validation, test, seed)
    except InvalidInput:
        least = max(1, round(episodes * validation)) + (max(1, round(episodes * test)) * (test > 0))
        assert least >= episodes
        return
    parts = (split.train, split.validation, split.test)
    assert sorted(np.concatenate(parts)) == list(range(episodes))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert len(split.train) >= 1
    assert len(split.validation) >= 1
    assert (len(split.test) >= 1) == (test > 0)
    again = split_episodes(episodes, validation, test, seed)
    assert np.array_equal(split.train, again.train)


def test_a_split_has_the_shares_and_depends_on_the_seed() -> None:
    first, second = (split_episodes(100, 0.2, 0.1, seed) for seed in (0, 1))
    assert (len(first.train), len(first.validation), len(first.test)) == (70, 20, 10)
    assert not np.array_equal(first.test, second.test)


def test_too_few_episodes_to_split() -> None:
    with pytest.raises(InvalidInput, match="got 2 in all; collect more or longer ones, or"):
        split_episodes(2, 0.1, 0.1, 0)


def test_judged_transitions_are_inputs_and_rewards(make_table: MakeTable) -> None:
    table = make_table([2, 1])
    rewards, goals = np.array([5.0, 6.0, 7.0]), np.arange(5.0)[:, None]
    judged = judged_transitions(replace(table, rewards=rewards), BOX)
    # Observation, next observation, action: two columns, two columns and one.
    np.testing.assert_allclose(judged.inputs[1], [1, 1.1, 2, 2.1, 1], rtol=1e-6)
    assert judged.inputs.shape == (3, 5)
    assert judged.reward.tolist() == [5, 6, 7]
    judged = judged_transitions(
        replace(table, rewards=rewards, achieved_goals=goals, desired_goals=goals), BOX
    )
    assert len(judged) == 3
    # The goal of the observation that a step begins at: the third ends the first episode.
    assert judged.inputs[:, 4].tolist() == [0, 1, 3]
    assert judged.inputs[:, 5].tolist() == [0, 1, 1000]


@given(data=st.data())
def test_windows_are_stretches_of_one_episode(make_table: MakeTable, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=5))
    horizon = data.draw(st.integers(1, 10))
    windows = cut_windows(make_table(lengths), BOX, horizon, limit=1000, seed=0)
    kept = min(horizon, max(lengths))
    assert windows.actions.shape[1] == windows.following.shape[1] == kept
    expected = [
        1000 * episode + step
        for episode, length in enumerate(lengths)
        for step in range(length - kept + 1)
    ]
    np.testing.assert_array_equal(windows.start[:, 0], expected)
    steps = windows.start[:, :1] + np.arange(kept)
    np.testing.assert_array_equal(windows.actions[..., 0], steps)
    np.testing.assert_array_equal(windows.following[..., 0], steps + 1)


def test_a_limit_draws_distinct_windows_by_the_seed(make_table: MakeTable) -> None:
    table = make_table([30, 30])
    first, again, other = (cut_windows(table, BOX, 3, 10, seed) for seed in (0, 0, 1))
    assert len(first.start) == 10
    assert len(np.unique(first.start[:, 0])) == 10
    assert np.array_equal(first.start, again.start)
    assert not np.array_equal(first.start, other.start)
