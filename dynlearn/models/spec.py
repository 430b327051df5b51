"""ModelSpec: what goes into a dynamics model, what comes out, and the network between."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dynlearn.config.choices import Activation
from dynlearn.models.heads import HeadKind
from dynlearn.models.regressor import Members, PriorComponents, RegressorSpec, Widths
from dynlearn.spaces import ActionSpace, ObservationSpace


class ModelSpec(BaseModel):
    """What goes into a model, what comes out, and the network between."""

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
    def full_state(self) -> bool:
        """Whether every observation column is predicted, in order, so that rollouts can go on."""
        return self.target_columns == tuple(range(self.observation_size))

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
