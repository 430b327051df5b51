"""ModelSpec: what goes into a dynamics model, what comes out, and the network between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dynlearn.config.choices import Activation
from dynlearn.errors import InvalidInput
from dynlearn.models.heads import HeadKind
from dynlearn.models.regressor import Members, PriorComponents, RegressorSpec, Widths
from dynlearn.spaces import ActionSpace, BoxSpace, ObservationSpace

# A model that does not need it is described as it was before there was such a thing.
_WhereNeeded = Field(exclude_if=lambda value: value is None)
Columns = tuple[float, ...]


class ModelSpec(BaseModel):
    """What goes into a model, what comes out, and the network between.

    Attributes:
        origin: what is taken off each observation column [O], in float64, where the numbers are too
            large for float32 to hold their steps; observations are float64 then, in and out.
        action_range: the least and the largest actions [A] of the training data, where those leave
            the action space.
    """

    # The outermost model decides how an unbounded space is written.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    observation_space: ObservationSpace
    action_space: ActionSpace
    observation_columns: tuple[int, ...] = Field(min_length=1)
    target_columns: tuple[int, ...] = Field(min_length=1)
    absolute_columns: tuple[int, ...] = ()
    members: Members
    hidden: Widths
    activation: Activation = "relu"
    separate_networks: bool = False
    head: HeadKind = "variance"
    prior_components: PriorComponents = 0
    origin: Annotated[Columns | None, _WhereNeeded] = None
    action_range: Annotated[tuple[Columns, Columns] | None, _WhereNeeded] = None

    @model_validator(mode="after")
    def _columns_exist(self) -> ModelSpec:
        size = self.observation_size
        for name in ("observation_columns", "target_columns"):
            columns = getattr(self, name)
            if len(set(columns)) < len(columns) or not all(0 <= c < size for c in columns):
                raise ValueError(
                    f"{name}: expected distinct columns 0 to {size - 1}, got {columns}"
                )
        if not set(self.absolute_columns) <= set(self.target_columns):
            raise ValueError(
                f"absolute_columns: expected some of the target columns {self.target_columns}, "
                f"got {self.absolute_columns}"
            )
        _require_length("origin", self.origin, size)
        for bound in self.action_range or ():
            _require_length("action_range", bound, self.action_size)
        return self

    @property
    def observation_size(self) -> int:
        """O, the number of observation columns."""
        return self.observation_space.observation.size

    @property
    def action_size(self) -> int:
        """A, the number of action columns, one-hot where actions are discrete."""
        return self.action_space.size

    @property
    def action_bounds(self) -> tuple[Columns, Columns]:
        """The least and the largest actions [A] that the model knows; others are clipped to them.

        Those of the action space, widened where the training data leave it.
        """
        if self.action_range is not None:
            return self.action_range
        if isinstance(self.action_space, BoxSpace):
            return self.action_space.low, self.action_space.high
        return (0.0,) * self.action_size, (1.0,) * self.action_size

    @property
    def full_state(self) -> bool:
        """Whether every observation column is predicted, in order, so that rollouts can go on."""
        return self.target_columns == tuple(range(self.observation_size))

    def require_full_state(self) -> None:
        """Check that trajectories can be imagined.

        Raises:
            InvalidInput: the model predicts only some of the observation's columns.
        """
        if not self.full_state:
            raise InvalidInput(
                f"expected a model of all {self.observation_size} observation columns for a "
                f"rollout, got one of columns {list(self.target_columns)}; "
                "train without target_columns"
            )

    @property
    def is_delta(self) -> tuple[bool, ...]:
        """Of each target column, whether its change is what the network answers."""
        return tuple(column not in self.absolute_columns for column in self.target_columns)

    @property
    def regressor(self) -> RegressorSpec:
        """What maps the observation columns and the action to the target columns."""
        return RegressorSpec(
            inputs=len(self.observation_columns) + self.action_size,
            targets=len(self.target_columns),
            members=self.members,
            hidden=self.hidden,
            activation=self.activation,
            separate_networks=self.separate_networks,
            head=self.head,
            prior_components=self.prior_components,
        )


def _require_length(name: str, values: Sequence[float] | None, size: int) -> None:
    if values is not None and len(values) != size:
        raise ValueError(f"{name}: expected {size} numbers, got {len(values)}")
