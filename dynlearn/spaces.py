"""Observation and action spaces as plain data: what a dataset and a model say of their columns."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dynlearn.errors import InvalidInput


class _Space(BaseModel):
    # JSON has no infinity; unbounded sides are written as the strings "Infinity" and "-Infinity".
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class BoxSpace(_Space):
    """Real vectors between two bounds, each of shape [size]."""

    kind: Literal["box"] = "box"
    low: tuple[float, ...]
    high: tuple[float, ...]
    dtype: str = "float32"

    @model_validator(mode="after")
    def _bounds_match(self) -> BoxSpace:
        if len(self.low) != len(self.high):
            raise ValueError(
                f"expected as many lower as upper bounds, got {len(self.low)} and {len(self.high)}"
            )
        return self

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

    def one_hot(self, values: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the one-hot code [..., n] of integers [...].

        Raises:
            InvalidInput: one is not in the space.
        """
        place = np.asarray(values, dtype=np.int64) - self.start
        if place.size and (place.min() < 0 or place.max() >= self.n):
            raise InvalidInput(
                f"action: expected integers {self.start} to {self.start + self.n - 1}, "
                f"got {place.min() + self.start} to {place.max() + self.start}"
            )
        code: NDArray[np.float32] = np.eye(self.n, dtype=np.float32)[place]
        return code


ActionSpace = Annotated[BoxSpace | DiscreteSpace, Field(discriminator="kind")]


class ObservationSpace(_Space):
    """The observation's columns, and the goal's where the environment has goals."""

    observation: BoxSpace
    goal: BoxSpace | None = None
