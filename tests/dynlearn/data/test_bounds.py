from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dynlearn.data.bounds import describe_outside, steps_outside
from dynlearn.data.episodes import EpisodeTable
from dynlearn.spaces import BoxSpace, DiscreteSpace


def test_steps_outside_their_bounds_are_counted(make_table: Callable[..., EpisodeTable]) -> None:
    actions = np.array([[-3, 0], [0.4, 5], [0.4000001, 0], [0, np.float32(0.7)]])
    table = replace(make_table([4]), actions=actions)
    space = BoxSpace(low=(-0.4, -np.inf), high=(0.4, 0.7))
    counts = steps_outside(table, space)
    assert counts.tolist() == [1, 1]
    assert describe_outside(counts, 4, space) == (
        "expected actions within the bounds of their space, got others: "
        "action[0] in 0.25, action[1] in 0.25 of the steps"
    )


def test_named_columns_and_many(make_table: Callable[..., EpisodeTable]) -> None:
    table = replace(make_table([2]), actions=np.full((2, 7), 2.0))
    space = BoxSpace(low=(0,) * 7, high=(1,) * 7, columns=tuple("abcdefg"))
    text = describe_outside(steps_outside(table, space), 2, space)
    assert text.endswith("a in 1, b in 1, c in 1, d in 1, e in 1 of the steps and 2 columns more")


def test_choices(make_table: Callable[..., EpisodeTable]) -> None:
    table = make_table([4], choices=4)
    assert steps_outside(table, DiscreteSpace(n=4)).tolist() == [0]
    counts = steps_outside(table, DiscreteSpace(n=2, start=1))
    assert "action in 0.5 of the steps" in describe_outside(counts, 4, DiscreteSpace(n=2, start=1))
