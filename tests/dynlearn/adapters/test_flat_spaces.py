from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from dynlearn.adapters.flat_spaces import describe_flat, flatten, flatten_rows, unflatten
from dynlearn.errors import InvalidInput

ROBOT = spaces.Dict(
    {
        "arm": spaces.Dict(
            {
                "joint": spaces.Box(-1, 1, (3,), np.float32),
                "load": spaces.Box(0, 5, (), np.float32),
            }
        ),
        "grip": spaces.Discrete(2, start=3),
        "lamps": spaces.MultiBinary([2]),
        "map": spaces.Box(-2, 2, (1, 2), np.float64),
        "modes": spaces.Tuple((spaces.MultiDiscrete([2, 3], start=[0, 1]), spaces.Discrete(1))),
        "ticks": spaces.Box(0, 9, (1,), np.int32),
    }
)
NAMES = (
    "arm.joint[0]", "arm.joint[1]", "arm.joint[2]", "arm.load",
    "grip=3", "grip=4",
    "lamps[0]", "lamps[1]",
    "map[0,0]", "map[0,1]",
    "modes.0[0]=0", "modes.0[0]=1", "modes.0[1]=1", "modes.0[1]=2", "modes.0[1]=3", "modes.1=0",
    "ticks[0]",
)  # fmt: skip
VALUE: dict[str, Any] = {
    "arm": {"joint": np.array([0.1, 0.2, 0.3], np.float32), "load": np.float32(4)},
    "grip": 4,
    "lamps": np.array([1, 0], np.int8),
    "map": np.array([[-2.0, 2.0]]),
    "modes": (np.array([0, 3]), 0),
    "ticks": np.array([7], np.int32),
}
COLUMNS = [0.1, 0.2, 0.3, 4, 0, 1, 1, 0, -2, 2, 1, 0, 0, 0, 1, 1, 7]


def test_columns_are_named_by_their_path() -> None:
    box = describe_flat(ROBOT, "action")
    assert box.columns == NAMES
    assert box.one_hot == ((4, 2), (10, 2), (12, 3), (15, 1))
    assert box.integers == (6, 7, 16)
    assert box.low == (-1, -1, -1, 0, 0, 0, 0, 0, -2, -2, 0, 0, 0, 0, 0, 0, 0)
    assert box.high == (1, 1, 1, 5, 1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 1, 9)
    assert box.dtype == "float64"


def test_values_become_columns_and_come_back() -> None:
    columns = flatten(ROBOT, VALUE, "float64")
    np.testing.assert_allclose(columns, COLUMNS, rtol=1e-7)
    again = unflatten(ROBOT, columns)
    assert ROBOT.contains(again)
    np.testing.assert_equal(again, VALUE)


def test_many_values_become_rows() -> None:
    values = batch_space(ROBOT, 4).sample()
    rows = flatten_rows(ROBOT, values, 4)
    assert rows.shape == (4, 17)
    np.testing.assert_array_equal(rows[:, 0:3], values["arm"]["joint"])
    np.testing.assert_array_equal(rows[:, 5], values["grip"] == 4)
    np.testing.assert_array_equal(rows[:, 16], values["ticks"][:, 0])


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (spaces.MultiDiscrete([1, 2]), ("action[0]=0", "action[1]=0", "action[1]=1")),
        (spaces.MultiBinary(2), ("action[0]", "action[1]")),
        (spaces.Tuple((spaces.Discrete(1), spaces.Box(0, 1, (1,)))), ("action.0=0", "action.1[0]")),
        (spaces.Box(0, 1, (2, 1)), ("action[0,0]", "action[1,0]")),
        (spaces.Box(0, 1, ()), ("action",)),
    ],
)
def test_what_is_no_dict_goes_by_its_own_name(space: Any, names: tuple[str, ...]) -> None:
    assert describe_flat(space, "action").columns == names


@pytest.mark.parametrize(
    ("space", "dtype"),
    [
        (
            spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Discrete(9)}),
            "float32",
        ),
        (spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float64)}), "float64"),
        (spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float16)}), "float32"),
        (spaces.Box(0, 2**24, (1,), np.int64), "float32"),
        (spaces.Box(-(2**24) - 1, 0, (1,), np.int64), "float64"),
        (spaces.MultiBinary(3), "float32"),
    ],
)
def test_columns_are_of_the_least_dtype_that_holds_them(space: Any, dtype: str) -> None:
    assert describe_flat(space, "action").dtype == dtype
    assert flatten_rows(space, batch_space(space, 2).sample(), 2).dtype == dtype


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            spaces.Dict({"eyes": spaces.Dict({"left": spaces.Box(0, 255, (8, 8, 3), np.uint8)})}),
            r"got eyes\.left, images of shape \[8, 8, 3\]",
        ),
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), r"got observation, images"),
        (spaces.Dict({"said": spaces.Text(5)}), "got said, a Text space"),
        (spaces.Tuple((spaces.Sequence(spaces.Discrete(2)),)), r"got observation\.0, a Sequence"),
        (spaces.Graph(spaces.Discrete(2), None), "got observation, a Graph space"),
        (spaces.OneOf((spaces.Discrete(2),)), "got observation, a OneOf space"),
        (spaces.Box(0, 1, (101, 100)), "at most 10000 columns, got 10100 of observation"),
        (spaces.Dict({}), "expected columns in the observation space"),
    ],
)
def test_what_makes_no_columns_is_refused_by_name(space: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        describe_flat(space, "observation")
