"""The configuration of a planner, and of episodes played with one."""

from typing import Self

from pydantic import Field, model_validator

from dynlearn.config.base import PRECISION, Config, EnvKwargs, Seed, SeedRange
from dynlearn.config.choices import Device, PredictionPrecision, Propagation


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
    env_kwargs: EnvKwargs | None = Field(
        None,
        description="what the environment is made with, as JSON; absent: as in the model's data",
    )
    max_steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="longest episode; the environment's own limit if absent",
    )
    seed_range: SeedRange | None = Field(
        None,
        description="lowest and highest seed that the environment takes, LOW:HIGH; absent: as in "
        "the model's data",
    )
    model: str = Field(description="model: NAME, NAME/VERSION or NAME@ALIAS")
    url: str | None = Field(None, description="address of a server to ask instead of loading")
    episodes: int = Field(10, ge=1, le=10_000, description="episodes to play, side by side")
    reward: str | None = Field(
        None,
        description="named reward of the task, or learned, the model's; absent: the environment's",
    )
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    precision: PredictionPrecision = Field("float32", description=PRECISION)
    seed: Seed = Field(0, description="seed of start states and of the planner")

    @model_validator(mode="after")
    def _a_server_has_its_own_precision(self) -> Self:
        if self.url is not None and self.precision != "float32":
            raise ValueError(
                f"precision: expected no such option with url, got {self.precision}; give it to "
                "`dynlearn serve`"
            )
        return self
