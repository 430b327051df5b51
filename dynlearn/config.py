"""The configuration of every kind of work: one source of CLI flags, YAML files and saved JSON.

`CollectConfig`, `TrainConfig`, `EvaluateConfig`, `ServeConfig` and `PlanConfig`; field
descriptions are the command line's help. Only the standard library and pydantic are needed here.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Device = Literal["auto", "cpu", "cuda"]
PredictionPrecision = Literal["float32", "bfloat16"]
Propagation = Literal["ts1", "tsinf", "expectation", "moment_matching"]
Covariance = Literal["diagonal", "full"]
ObjectiveName = Literal[
    "beta_nll",
    "nll",
    "mse",
    "moment_matching",
    "student_t",
    "xvamp",
    "xvamp_star",
    "vbem",
    "vbem_star",
    "trust_region_nll",
    "trustable",
]
TrustRegionMetric = Literal["kl", "w2", "w2_unscaled", "frobenius"]


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


def _split_at_commas(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


Integers = Annotated[tuple[int, ...], BeforeValidator(_split_at_commas)]
"""Whole numbers; on the command line with commas between them."""

References = Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)]
"""Names of models; on the command line with commas between them."""

ActionsOutside = Literal["clip", "refuse"]

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]

_PRECISION = (
    "of the products between hidden layers; bfloat16 is rougher, and faster where the processor "
    "has units for it"
)


class Config(BaseModel):
    """A frozen set of options; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CollectConfig(Config):
    """Collect episodes of a Gymnasium environment into a dataset, with Ray workers."""

    dataset: str = Field(description="name of the dataset to write")
    env: str = Field("dynlearn/ObjectSlide-v1", description="Gymnasium environment id")
    episodes: int = Field(500, ge=1, le=10_000_000, description="number of episodes")
    policy: str = Field("scripted", description="behaviour policy: random or scripted")
    noise: float = Field(
        0.3, ge=0, description="standard deviation of the action noise, in half action ranges"
    )
    random_share: float = Field(
        0.3, ge=0, le=1, description="share of episodes with uniformly random actions"
    )
    max_steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="longest episode; the environment's own limit if absent",
    )
    seed: Seed = Field(0, description="dataset seed; with it the content is determined")
    episodes_per_shard: int = Field(500, ge=1, le=100_000, description="episodes in one file")
    workers: int = Field(2, ge=1, le=1024, description="number of Ray workers")
    resume: bool = Field(False, description="go on with a dataset that was cut off")

    def content(self) -> dict[str, object]:
        """Return the options that determine the dataset's content."""
        return self.model_dump(exclude={"workers", "resume"})


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
    activation: Literal["relu", "tanh", "silu"] = Field("silu", description="activation function")
    separate_networks: bool = Field(
        False, description="a network of its own for the variances, not one trunk for both"
    )
    initialization: Literal["xavier_uniform", "lecun_uniform"] = Field(
        "lecun_uniform", description="initial weights"
    )
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


class EvaluateConfig(Config):
    """Measure a model on held-out episodes; write figures and a model card."""

    model: str = Field(description="model: NAME, NAME/VERSION or NAME@ALIAS")
    dataset: str | None = Field(
        None, description="dataset to evaluate on, whole; absent: the model's own test episodes"
    )
    horizon: int = Field(15, ge=1, le=1000, description="steps of the open-loop rollouts")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    precision: PredictionPrecision = Field("float32", description=_PRECISION)
    seed: Seed = Field(0, description="seed of the rollouts' start steps")


class ServeConfig(Config):
    """Serve a model over HTTP in the Open Inference Protocol v2."""

    model: References = Field(
        (), description="models: NAME, NAME/VERSION or NAME@ALIAS, commas between; absent: all"
    )
    host: str = Field("127.0.0.1", description="address to listen on; others need tokens")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    precision: PredictionPrecision = Field("float32", description=_PRECISION)
    replicas: int | None = Field(
        None, ge=1, le=1000, description="serve from up to so many processes, with Ray Serve"
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="torch's threads; absent: one a processor"
    )
    batch_rows: int = Field(
        4096, ge=1, description="predictions that wait are merged up to so many rows; 1: never"
    )
    batch_wait_ms: float = Field(
        0.0, ge=0, le=1000, description="how long to wait for more rows, in milliseconds"
    )
    actions_outside: ActionsOutside = Field(
        "clip", description="what becomes of actions outside their bounds"
    )
    memory_limit_gib: float = Field(
        4.0, gt=0, description="for the weights of versions that are kept beside those served"
    )
    max_pending: int = Field(1024, ge=1, description="most requests that wait; more get 503")
    max_body_bytes: int = Field(64 * 2**20, ge=1, description="largest body, after decompression")
    max_bytes_under_way: int = Field(
        512 * 2**20, ge=1, description="of all bodies at once; more get 503"
    )
    max_answer_bytes: int = Field(512 * 2**20, ge=1, description="largest answer")
    max_rows: int = Field(1_000_000, ge=1, description="most rows in one request")
    grace_seconds: float = Field(
        10.0, ge=0, le=3600, description="for requests under way when the server is to end"
    )
    log: Literal["errors", "text", "json"] = Field(
        "errors", description="what to write of each request"
    )


class PlannerConfig(Config):
    """How a planner searches."""

    horizon: int = Field(30, ge=1, le=1000, description="steps that a plan looks ahead")
    candidates: int = Field(128, ge=2, le=100_000, description="action sequences in one iteration")
    elites: int = Field(16, ge=1, description="best sequences that shape the next iteration")
    iterations: int = Field(3, ge=1, le=1000, description="iterations of CEM at each step")
    particles: int = Field(
        5, ge=1, le=10_000, description="imagined trajectories for each sequence"
    )
    propagation: Propagation = Field("tsinf", description="how members are chosen along the way")
    risk_aversion: float = Field(
        1.0, ge=0, description="standard deviations over particles to subtract from the return"
    )


class PlanConfig(PlannerConfig):
    """Play real episodes with a planner over a learned model, local or served."""

    env: str = Field("dynlearn/ObjectSlide-v1", description="Gymnasium environment id")
    model: str = Field(description="model: NAME, NAME/VERSION or NAME@ALIAS")
    url: str | None = Field(None, description="address of a server to ask instead of loading")
    episodes: int = Field(10, ge=1, le=10_000, description="episodes to play, side by side")
    reward: str | None = Field(
        None,
        description="named reward of the task, or learned, the model's; absent: the environment's",
    )
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    precision: PredictionPrecision = Field("float32", description=_PRECISION)
    seed: Seed = Field(0, description="seed of start states and of the planner")

    @model_validator(mode="after")
    def _a_server_has_its_own_precision(self) -> Self:
        if self.url is not None and self.precision != "float32":
            raise ValueError(
                f"precision: expected no such option with url, got {self.precision}; give it to "
                "`dynlearn serve`"
            )
        return self
