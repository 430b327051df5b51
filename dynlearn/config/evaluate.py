"""The configuration of an evaluation."""

from pydantic import Field

from dynlearn.config.base import PRECISION, Config, Seed
from dynlearn.config.choices import Device, PredictionPrecision


class EvaluateConfig(Config):
    """Measure a model on held-out episodes; write figures and a model card."""

    model: str = Field(description="model: NAME, NAME/VERSION or NAME@ALIAS")
    dataset: str | None = Field(
        None, description="dataset to evaluate on, whole; absent: the model's own test episodes"
    )
    horizon: int = Field(15, ge=1, le=1000, description="steps of the open-loop rollouts")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    precision: PredictionPrecision = Field("float32", description=PRECISION)
    seed: Seed = Field(0, description="seed of the rollouts' start steps")
