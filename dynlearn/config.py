"""The configuration of every kind of work: one source of CLI flags, YAML files and saved JSON.

`CollectConfig`, `TrainConfig`, `EvaluateConfig`, `ServeConfig` and `PlanConfig`; field
descriptions are the command line's help. Only the standard library and pydantic are needed here.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Device = Literal["auto", "cpu", "cuda"]
Propagation = Literal["ts1", "tsinf", "expectation"]
ObjectiveName = Literal["beta_nll", "nll", "mse"]


def _split_at_commas(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


Integers = Annotated[tuple[int, ...], BeforeValidator(_split_at_commas)]
"""Whole numbers; on the command line with commas between them."""

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


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
    beta: float = Field(0.5, ge=0, le=1, description="exponent of the variance weight of beta_nll")
    members: int = Field(5, ge=1, le=256, description="number of ensemble members")
    elites: int | None = Field(
        None, ge=1, description="members kept for prediction, best first; all if absent"
    )
    hidden: Integers = Field(
        (128, 128, 128), min_length=1, max_length=32, description="widths of the hidden layers"
    )
    activation: Literal["relu", "tanh", "silu"] = Field("silu", description="activation function")
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
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size")
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="step size over the run: constant, or falling to zero"
    )
    batch_size: int = Field(
        256, ge=1, le=2**20, description="transitions in one update of a member"
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
    checkpoint_every: int = Field(1000, ge=1, description="updates between checkpoints")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    seed: Seed = Field(0, description="seed of splits, weights, bootstraps and shuffles")
    resume: bool = Field(False, description="go on from the last checkpoint of this model's run")


class EvaluateConfig(Config):
    """Measure a model on held-out episodes; write figures and a model card."""

    model: str = Field(description="model: NAME, NAME/VERSION or NAME@ALIAS")
    dataset: str | None = Field(
        None, description="dataset to evaluate on, whole; absent: the model's own test episodes"
    )
    horizon: int = Field(15, ge=1, le=1000, description="steps of the open-loop rollouts")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    seed: Seed = Field(0, description="seed of the rollouts' start steps")


class ServeConfig(Config):
    """Serve a model over HTTP in the Open Inference Protocol v2."""

    model: str = Field(description="model: NAME, NAME/VERSION or NAME@ALIAS")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    max_body_bytes: int = Field(64 * 2**20, ge=1, description="largest request body")
    max_rows: int = Field(1_000_000, ge=1, description="most rows in one request")


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
    reward: str | None = Field(None, description="named reward; the environment's own if absent")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    seed: Seed = Field(0, description="seed of start states and of the planner")
