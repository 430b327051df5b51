from typing import Any

import numpy as np
import pytest

from dynlearn.errors import InvalidInput
from dynlearn.numbers import check_integer, holds_flags


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_whole_numbers(value: Any) -> None:
    found = check_integer("steps", value, 1, 3)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize(
    "value", [True, np.True_, 1.0, 1.7, float("nan"), "1", None, [1], 0, -1, 4]
)
def test_what_is_none_or_beyond(value: Any) -> None:
    with pytest.raises(InvalidInput, match="steps: expected an integer from 1 to 3, got"):
        check_integer("steps", value, 1, 3)


def test_what_was_expected() -> None:
    with pytest.raises(InvalidInput, match="steps: expected an integer of at least 1, got 0"):
        check_integer("steps", 0, 1)
    with pytest.raises(InvalidInput, match="steps: expected an integer, got '2'"):
        check_integer("steps", "2")


@pytest.mark.parametrize("values", [True, [False], [1, True], [[1.0], [True]], [(0, 1), (0, True)]])
def test_flags_among_numbers(values: Any) -> None:
    assert holds_flags(values)


@pytest.mark.parametrize("values", [1, [], [1, 0.5], [[1.0], [0]], np.array([True]), None, "True"])
def test_no_flags(values: Any) -> None:
    assert not holds_flags(values)
