"""The configuration of a training."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from dynlearn.config.base import Columns, Config, Integers, Seed
from dynlearn.config.choices import Activation, Covariance, Device, Initialization
from dynlearn.config.objectives import OPTIONS, BetaNLLSettings, ObjectiveSettings, gather


class TrainConfig(Config):
    """Fit an ensemble dynamics model to a dataset and publish it in the registry."""

    dataset: str = Field(description="name of the dataset to learn from")
    model: str = Field(description="name of the model to publish")
    objective: ObjectiveSettings = Field(
        BetaNLLSettings(), discriminator="name", description="how to fit"
    )
    covariance: Covariance = Field(
        "diagonal", description="what each member predicts: variances, or a full covariance"
    )
    members: int = Field(5, ge=1, le=256, description="number of ensemble members")
    elites: int | None = Field(
        None, ge=1, description="members kept for prediction, best first; all if absent"
    )
    hidden: Integers = Field(
        (128, 128, 128), min_length=1, max_length=32, description="widths of the hidden layers"
    )
    activation: Activation = Field("silu", description="activation function")
    separate_networks: bool = Field(
        False, description="a network of its own for the variances, not one trunk for both"
    )
    initialization: Initialization = Field("lecun_uniform", description="initial weights")
    observation_columns: Columns | None = Field(
        None, description="observation columns that go in; all if absent"
    )
    target_columns: Columns | None = Field(
        None, description="observation columns that are predicted; all if absent"
    )
    absolute_columns: Integers = Field(
        (), description="predicted columns learned as values, not as differences"
    )
    learn_reward: bool = Field(
        False, description="learn the reward too, to plan with where no task has one"
    )
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size")
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="step size over the run: constant, or falling to zero"
    )
    batch_size: int = Field(
        256, ge=1, le=2**20, description="transitions in one update of a member"
    )
    precision: Literal["float32", "float64", "bfloat16"] = Field(
        "float32", description="of the training; bfloat16 for the matrix products alone"
    )
    max_updates: int = Field(20_000, ge=1, description="most gradient updates")
    validate_every: int = Field(500, ge=1, description="updates between validations")
    patience: int = Field(
        20, ge=1, description="validations without improvement after which a member stops"
    )
    select_by: Literal["nll", "rmse"] = Field(
        "nll", description="validation measure for early stopping, best weights and elites"
    )
    bootstrap: bool = Field(True, description="give each member its own resample of the data")
    validation_share: float = Field(0.1, gt=0, lt=1, description="share of episodes to validate on")
    test_share: float = Field(0.1, ge=0, lt=1, description="share of episodes to evaluate on")
    member_groups: int | None = Field(
        None,
        ge=1,
        description="groups of members trained side by side on a CPU; absent: as suits their size "
        "and the threads",
    )
    workers: int = Field(
        1,
        ge=1,
        le=1024,
        description="Ray workers that the members are split over, a GPU or a CPU each; with one, "
        "they train here",
    )
    checkpoint_every: int = Field(1000, ge=1, description="updates between checkpoints")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    seed: Seed = Field(0, description="seed of splits, weights, bootstraps and shuffles")
    resume: bool = Field(False, description="go on from the last checkpoint of this model's run")

    @model_validator(mode="before")
    @classmethod
    def _gather_the_objective(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        flat = {name: values[name] for name in OPTIONS if name in values}
        if not flat and "objective" not in values:
            return values
        given = values.get("objective", BetaNLLSettings())
        others = {name: value for name, value in values.items() if name not in flat}
        return {**others, "objective": gather(given, flat)}

    @model_serializer(mode="wrap")
    def _with_flat_options(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        settings = values.pop("objective", None)
        if settings is None:
            return values
        return {**values, "objective": settings.pop("name"), **settings}

    @model_validator(mode="after")
    def _reward_is_of_whole_states(self) -> Self:
        if self.learn_reward and self.target_columns is not None:
            raise ValueError(
                "learn_reward: expected no target_columns, for a reward is of all columns, got "
                f"{self.target_columns}; leave one of the two out"
            )
        return self
