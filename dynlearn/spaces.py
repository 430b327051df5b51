"""Observation and action spaces as plain data: what a dataset and a model say of their columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dynlearn.errors import InvalidInput


class _Space(BaseModel):
    # JSON has no infinity; unbounded sides are written as the strings "Infinity" and "-Infinity".
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


_is_absent: Callable[[Any], bool] = lambda value: value == ()  # noqa: E731
# A plain vector is described as it was before there were others.
_WhereNeeded = Field(exclude_if=_is_absent)


class BoxSpace(_Space):
    """Vectors between two bounds, each of shape [size]; nested spaces come flattened.

    Attributes:
        low: the lower bounds.
        high: the upper bounds.
        dtype: of the environment's arrays.
        columns: what the columns are called, by their path in a nested space; none for a vector.
        one_hot: columns of which exactly one is 1, a choice each: the first and how many.
        integers: columns that take whole numbers alone.
    """

    kind: Literal["box"] = "box"
    low: tuple[float, ...]
    high: tuple[float, ...]
    dtype: str = "float32"
    columns: Annotated[tuple[str, ...], _WhereNeeded] = ()
    one_hot: Annotated[tuple[tuple[int, int], ...], _WhereNeeded] = ()
    integers: Annotated[tuple[int, ...], _WhereNeeded] = ()

    @model_validator(mode="after")
    def _parts_match(self) -> BoxSpace:
        if len(self.low) != len(self.high):
            raise ValueError(
                f"expected as many lower as upper bounds, got {len(self.low)} and {len(self.high)}"
            )
        if len(self.columns) not in (0, self.size):
            raise ValueError(f"expected {self.size} names of columns, got {len(self.columns)}")
        whole = self.whole
        if len(set(whole)) < len(whole) or not set(whole) <= set(range(self.size)):
            raise ValueError(
                f"one_hot, integers: expected distinct columns 0 to {self.size - 1}, got {whole}"
            )
        return self

    @property
    def whole(self) -> tuple[int, ...]:
        """The columns that take whole numbers alone, those of choices first."""
        choices = (range(first, first + count) for first, count in self.one_hot)
        return (*(column for choice in choices for column in choice), *self.integers)

    def names(self, of: str) -> tuple[str, ...]:
        """Return what the columns are called, ``of[0]`` and so on where they have no names."""
        return self.columns or tuple(f"{of}[{column}]" for column in range(self.size))

    @property
    def size(self) -> int:
        """The number of columns."""
        return len(self.low)


class DiscreteSpace(_Space):
    """The integers start, start + 1, ..., start + n - 1; a model sees them one-hot."""

    kind: Literal["discrete"] = "discrete"
    n: int = Field(ge=1)
    start: int = 0

    @property
    def size(self) -> int:
        """The number of columns of the one-hot code."""
        return self.n

    def names(self, of: str) -> tuple[str, ...]:
        """Return what the columns of the one-hot code are called."""
        return tuple(f"{of}={self.start + choice}" for choice in range(self.n))

    def choices(self, values: Any, rank: int, name: str = "action") -> NDArray[np.int64]:
        """Return integers of the space, however they are written.

        Args:
            values: integers [...], or [..., 1], or one-hot [..., n].
            rank: how many dimensions ``...`` are.
            name: what they are called.

        Raises:
            InvalidInput: they are none of these, or one is not in the space.
        """
        given = np.asarray(values)
        whole = given.dtype.kind in "iu" or not given.size
        if given.ndim == rank + 1 and given.shape[-1] == 1 and whole:
            given = given[..., 0]
        elif given.ndim == rank + 1 and given.shape[-1] == self.n and given.dtype.kind in "iufb":
            place = given.argmax(-1)
            code = place[..., None] == np.arange(self.n)
            if not np.array_equal(given, code):
                raise InvalidInput(f"{name}: expected one 1 among zeros in each row, got others")
            given = place + self.start
        if given.ndim != rank or (given.dtype.kind not in "iu" and given.size):
            raise InvalidInput(
                f"{name}: expected integers of {rank} dimensions, or one-hot rows of {self.n}, got "
                f"{given.dtype} of shape {list(given.shape)}"
            )
        self._require_own(given, name)
        return given.astype(np.int64)

    def one_hot(self, values: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the one-hot code [..., n] of integers [...].

        Raises:
            InvalidInput: one is not in the space.
        """
        values = np.asarray(values, np.int64)
        self._require_own(values, "action")
        code: NDArray[np.float32] = np.eye(self.n, dtype=np.float32)[values - self.start]
        return code

    def _require_own(self, values: NDArray[np.integer], name: str) -> None:
        last = self.start + self.n - 1
        if values.size and (values.min() < self.start or values.max() > last):
            raise InvalidInput(
                f"{name}: expected integers {self.start} to {last}, "
                f"got {values.min()} to {values.max()}"
            )


ActionSpace = Annotated[BoxSpace | DiscreteSpace, Field(discriminator="kind")]


class ObservationSpace(_Space):
    """The observation's columns, and the goal's where the environment has goals."""

    observation: BoxSpace
    goal: BoxSpace | None = None


def require_bounded_reals(space: ActionSpace) -> BoxSpace:
    """Return a space of actions that are real numbers between finite bounds.

    Raises:
        InvalidInput: it is another; the message names what a planner cannot search.
    """
    if obstacle := obstacle_to_planning(space):
        raise InvalidInput(obstacle)
    assert isinstance(space, BoxSpace)
    return space


def obstacle_to_planning(space: ActionSpace) -> str | None:
    """Return what of a space CEM cannot search, for a message; None if it can."""
    if not isinstance(space, BoxSpace):
        return f"expected continuous actions for CEM, got {_choices(space)}; {_OTHERS}"
    names = space.names("action")
    if space.whole:
        some = ", ".join(names[column] for column in space.whole[:5])
        more = f" and {len(space.whole) - 5} more" if len(space.whole) > 5 else ""
        return f"expected continuous actions for CEM, got whole numbers in {some}{more}; {_OTHERS}"
    unbounded = np.flatnonzero(~np.isfinite([space.low, space.high]).all(axis=0))
    if unbounded.size:
        return (
            f"expected bounded actions for CEM, got no bound of {names[unbounded[0]]}; rescale "
            "them with gymnasium.wrappers.RescaleAction"
        )
    return None


_OTHERS = "a planner of your own can ask the model, in process or served, for its predictions"


def difference(expected: BoxSpace | DiscreteSpace, given: BoxSpace | DiscreteSpace) -> str | None:
    """Return how two spaces differ in kind, columns or bounds, for a message; None if they do not.

    The dtype alone is no difference, nor is what it makes of a bound, nor what columns are called.
    """
    if isinstance(expected, BoxSpace) and isinstance(given, BoxSpace):
        if expected.size != given.size:
            return f"expected {expected.size} columns, got {given.size}"
        if sorted(expected.whole) != sorted(given.whole):
            kinds = (sorted(space.whole) or "none" for space in (expected, given))
            return "expected whole numbers in columns {}, got {}".format(*kinds)
        for side in ("low", "high"):
            wanted, there = (np.array(getattr(space, side)) for space in (expected, given))
            differs = ~np.isclose(wanted, there, rtol=1e-6, atol=1e-6)
            if differs.any():
                column = int(np.argmax(differs))
                name = expected.columns[column] if expected.columns else f"column {column}"
                return f"expected {side} {wanted[column]:g} of {name}, got {there[column]:g}"
        return None
    if isinstance(expected, DiscreteSpace) and isinstance(given, DiscreteSpace):
        if expected == given:
            return None
        return f"expected {_choices(expected)}, got {_choices(given)}"
    kinds = ("a vector" if space.kind == "box" else "choices" for space in (expected, given))
    return "expected {}, got {}".format(*kinds)


def _choices(space: DiscreteSpace) -> str:
    return f"choices {space.start} to {space.start + space.n - 1}"
