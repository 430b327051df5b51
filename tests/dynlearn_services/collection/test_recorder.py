"""What is data, and what only looks like it."""

from typing import Any

import numpy as np
import pytest

from dynlearn.errors import CorruptData
from dynlearn.spaces import BoxSpace, DiscreteSpace, ObservationSpace
from dynlearn_services.collection.recorder import Recorder


def recorder(dtype: Any = "float32") -> Recorder:
    space = BoxSpace(low=(0.0, 0.0), high=(9.0, 9.0), dtype=dtype)
    record = Recorder(1, 3, ObservationSpace(observation=space), DiscreteSpace(n=3))
    record.begin(0)
    return record


def seen(record: Recorder) -> list[Any]:
    record.lengths[0] = 1
    record.state(0, 1, [0, 0])
    record.step(0, 0, 1, 0.0, True, False)
    first: list[Any] = record.table([0], [0]).observations[0].tolist()
    return first


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("float32", [1, 2]),
        ("float32", np.array([1, 2], np.float64)),
        ("float32", np.array([1, 2], object).astype(int)),
        ("int64", np.array([1.0, 2.0])),
        ("uint8", np.array([1, 2])),
        ("float64", (np.float32(1), 2)),
    ],
)
def test_numbers_of_another_kind_are_taken_where_they_are_equal(dtype: str, given: Any) -> None:
    record = recorder(dtype)
    record.state(0, 0, given)
    assert seen(record) == [1, 2]


@pytest.mark.parametrize(
    ("dtype", "given", "message"),
    [
        ("int64", np.array([1.0, 2.5]), r"observations of int64, got \[1\.  2\.5\]"),
        ("uint8", np.array([1, 256]), r"observations of uint8, got \[  1 256\]"),
        ("uint8", np.array([-1, 2]), "observations of uint8"),
        ("int64", np.array([np.nan, 2]), "observations of int64"),
        ("float32", np.array([None, 2]), "observations of numbers, got object"),
        ("float32", np.array(["1", "2"]), "observations of numbers, got <U1"),
    ],
)
def test_what_would_be_changed_is_refused(dtype: str, given: Any, message: str) -> None:
    with pytest.raises(CorruptData, match=message):
        recorder(dtype).state(0, 0, given)


def test_what_is_beyond_the_spaces_own_numbers_is_not_finite() -> None:
    record = recorder()
    record.state(0, 0, np.array([1e300, 0.0]))
    record.good_steps = 0
    with pytest.raises(CorruptData, match="observations that are not finite"):
        record.check(0, 0)


@pytest.mark.parametrize("reward", [1, True, np.float32(1), np.array([1.0]), np.array(1)])
def test_rewards_are_one_number(reward: Any) -> None:
    record = recorder()
    record.state(0, 0, [0, 0])
    record.state(0, 1, [0, 0])
    record.step(0, 0, 1, reward, np.bool_(True), 0)
    record.lengths[0] = 1
    table = record.table([0], [0])
    assert (table.rewards.tolist(), table.terminated.tolist()) == ([1.0], [True])


@pytest.mark.parametrize(
    ("reward", "terminated", "message"),
    [
        (None, True, "rewards of numbers, got object"),
        ("1", True, "rewards of numbers"),
        (1j, True, "rewards of numbers, got complex128"),
        ([], True, r"one of rewards a step, got them of shape \(0,\)"),
        (1.0, None, "terminated of numbers"),
        (1.0, 0.5, r"terminated of bool, got \[0.5\]"),
        (1.0, [True, False], "one of terminated a step"),
    ],
)
def test_what_is_neither_reward_nor_end_is_refused(
    reward: Any, terminated: Any, message: str
) -> None:
    with pytest.raises(CorruptData, match=message):
        recorder().step(0, 0, 1, reward, terminated, False)
