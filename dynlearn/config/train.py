"""The configuration of a training."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dynlearn.config.base import Config, Integers, Seed
from dynlearn.config.choices import (
    Activation,
    Covariance,
    Device,
    Initialization,
    ObjectiveName,
    TrustRegionMetric,
)

_OPTIONS_OF: dict[tuple[str, ...], tuple[ObjectiveName, ...]] = {
    ("beta",): ("beta_nll", "trustable"),
    ("natural_step", "regression_metric"): ("trustable",),
    (
        "trust_region",
        "mean_bound",
        "covariance_bound",
        "refresh_epochs",
        "old_distributions",
        "memory_limit_gib",
    ): ("trustable", "trust_region_nll"),
}
"""Options that do nothing with any other objective."""


class TrainConfig(Config):
    """Fit an ensemble dynamics model to a dataset and publish it in the registry."""

    dataset: str = Field(description="name of the dataset to learn from")
    model: str = Field(description="name of the model to publish")
    objective: ObjectiveName = Field("beta_nll", description="how to fit")
    beta: float | None = Field(
        None,
        ge=0,
        le=1,
        description="exponent of the variance weight; absent: 0.5 with beta_nll, 0 with trustable",
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
    observation_columns: Integers | None = Field(
        None, description="observation columns that go in; all if absent"
    )
    target_columns: Integers | None = Field(
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
    trust_region: TrustRegionMetric = Field(
        "kl", description="metric of the bounds of trustable and trust_region_nll"
    )
    mean_bound: float | None = Field(
        None, gt=0, description="how far a mean may move in an epoch, a dimension; absent: any way"
    )
    covariance_bound: float | None = Field(
        0.1,
        gt=0,
        description="how far a covariance may move in an epoch, a dimension; none: any way",
    )
    natural_step: float = Field(0.1, gt=0, le=1, description="step of trustable's natural gradient")
    regression_metric: Literal["kl", "w2"] = Field(
        "kl", description="what trustable's network is fitted to its targets in"
    )
    refresh_epochs: int = Field(
        1, ge=1, description="epochs between refreshes of the old distributions"
    )
    old_distributions: Literal["samples", "snapshot"] = Field(
        "samples", description="kept for every sample, or as a snapshot of the network"
    )
    memory_limit_gib: float = Field(
        4.0, gt=0, description="most memory for all old distributions, in GiB"
    )
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

    @model_validator(mode="after")
    def _reward_is_of_whole_states(self) -> Self:
        if self.learn_reward and self.target_columns is not None:
            raise ValueError(
                "learn_reward: expected no target_columns, for a reward is of all columns, got "
                f"{self.target_columns}; leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _options_suit_the_objective(self) -> Self:
        for options, objectives in _OPTIONS_OF.items():
            for name in options if self.objective not in objectives else ():
                value = getattr(self, name)
                if value != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name}: expected no such option with objective {self.objective}, got "
                        f"{value}; leave it out, or take {' or '.join(objectives)}"
                    )
        if self.beta and self.objective == "trustable" and self.regression_metric == "w2":
            raise ValueError(
                f"beta: expected no such option with regression_metric w2, got {self.beta}; "
                "leave it out, or take kl"
            )
        return self
