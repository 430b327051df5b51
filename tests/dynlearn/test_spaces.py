import numpy as np
import pytest
from pydantic import ValidationError

from dynlearn.errors import InvalidInput
from dynlearn.spaces import BoxSpace, DiscreteSpace, ObservationSpace


def test_unbounded_sides_survive_json() -> None:
    space = ObservationSpace(observation=BoxSpace(low=(-np.inf, 0.0), high=(np.inf, 1.0)))
    assert ObservationSpace.model_validate_json(space.model_dump_json()) == space
    assert '"-Infinity"' in space.model_dump_json()


def test_both_bounds_have_the_same_size() -> None:
    with pytest.raises(ValidationError, match="as many lower as upper bounds, got 2 and 1"):
        BoxSpace(low=(0.0, 0.0), high=(1.0,))


def test_one_hot() -> None:
    space = DiscreteSpace(n=3, start=-1)
    assert space.size == 3
    assert space.one_hot(np.array([[-1, 1]])).tolist() == [[[1, 0, 0], [0, 0, 1]]]
    assert DiscreteSpace(n=2, start=1).one_hot(np.array([1, 2], np.uint8)).tolist() == [
        [1, 0],
        [0, 1],
    ]
    assert space.one_hot(np.array([1], np.uint8)).tolist() == [[0, 0, 1]]
    assert space.one_hot(np.empty(0, np.int64)).shape == (0, 3)


@pytest.mark.parametrize("values", [[-2], [0, 2]])
def test_choices_out_of_range_are_refused(values: list[int]) -> None:
    with pytest.raises(InvalidInput, match="expected integers -1 to 1, got"):
        DiscreteSpace(n=3, start=-1).one_hot(np.array(values))
