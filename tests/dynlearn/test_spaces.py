import numpy as np
import pytest
from pydantic import ValidationError

from dynlearn.errors import InvalidInput
from dynlearn.spaces import BoxSpace, DiscreteSpace, ObservationSpace, difference


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


HAND = BoxSpace(
    low=(-0.4, 0, 0, 0),
    high=(0.4, 1, 1, 5),
    dtype="float64",
    columns=("arm", "grip=0", "grip=1", "gear"),
    one_hot=((1, 2),),
    integers=(3,),
)


def test_columns_have_names() -> None:
    assert HAND.names("action") == ("arm", "grip=0", "grip=1", "gear")
    assert HAND.whole == (1, 2, 3)
    assert BoxSpace(low=(0, 0), high=(1, 1)).names("action") == ("action[0]", "action[1]")
    assert DiscreteSpace(n=2, start=3).names("action") == ("action=3", "action=4")


def test_a_plain_vector_is_described_as_before_there_were_others() -> None:
    assert BoxSpace(low=(0,), high=(1,)).model_dump() == {
        "kind": "box", "low": (0,), "high": (1,), "dtype": "float32",
    }  # fmt: skip
    assert BoxSpace.model_validate_json(HAND.model_dump_json()) == HAND


@pytest.mark.parametrize(
    "change", [{"columns": ("arm",)}, {"one_hot": ((2, 2),)}, {"integers": (2,)}]
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="expected"):
        BoxSpace(**(HAND.model_dump() | change))


@pytest.mark.parametrize(
    ("expected", "given", "told"),
    [
        (
            BoxSpace(low=(-0.4, -np.inf), high=(0.4, np.inf)),
            BoxSpace(
                low=(float(np.float32(-0.4)), -np.inf),
                high=(float(np.float32(0.4)), np.inf),
                dtype="float64",
            ),
            None,
        ),
        (HAND, HAND.model_copy(update={"columns": ()}), None),
        (DiscreteSpace(n=2), DiscreteSpace(n=2), None),
        (
            BoxSpace(low=(-1,), high=(1,)),
            BoxSpace(low=(-1,), high=(2,)),
            "expected high 1 of column 0, got 2",
        ),
        (
            HAND,
            HAND.model_copy(update={"high": (np.inf, 1, 1, 5)}),
            "expected high 0.4 of arm, got inf",
        ),
        (BoxSpace(low=(-1,), high=(1,)), HAND, "expected 1 columns, got 4"),
        (
            HAND,
            HAND.model_copy(update={"integers": ()}),
            r"expected whole numbers in columns [1, 2, 3], got [1, 2]",
        ),
        (DiscreteSpace(n=2), DiscreteSpace(n=3), "expected choices 0 to 1, got choices 0 to 2"),
        (DiscreteSpace(n=2), HAND, "expected choices, got a vector"),
    ],
)
def test_the_difference_of_spaces_is_named(
    expected: BoxSpace | DiscreteSpace, given: BoxSpace | DiscreteSpace, told: str | None
) -> None:
    assert difference(expected, given) == told
