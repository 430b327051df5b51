"""What callers may say beside the tensors of a request."""

import time
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dynlearn.config.choices import Propagation
from dynlearn.errors import InvalidInput, describe_fault

_MOST_PARTICLES = 10_000


class CallParameters(BaseModel):
    """What a caller says beside the tensors; keys of the protocol that mean nothing here pass."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    timeout: int | None = Field(
        None, gt=0, le=10**12, description="microseconds after which nobody waits for the answer"
    )

    @classmethod
    def read(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the parameters of a request.

        Raises:
            InvalidInput: one has a value that it cannot have.
        """
        try:
            return cls.model_validate(dict(parameters))
        except ValidationError as error:
            raise InvalidInput(f"parameters.{describe_fault(error, '')}") from error

    @property
    def deadline(self) -> float | None:
        """The timeout as a time of `time.monotonic`, from now on."""
        return None if self.timeout is None else time.monotonic() + self.timeout / 1e6


class PredictParameters(CallParameters):
    """The parameters of a prediction."""

    seed: int | None = Field(None, ge=0, lt=2**63, description="of samples; they need it")
    propagation: Propagation = Field("ts1", description="how next observations are sampled")
    members: list[int] | None = Field(
        None, max_length=256, description="which members make up the mixture; absent: all"
    )


class RolloutParameters(CallParameters):
    """The parameters of a rollout."""

    particles: int = Field(20, ge=1, le=_MOST_PARTICLES, description="of each action sequence")
    propagation: Propagation = Field("tsinf", description="how members are chosen along the way")
    seed: int = Field(0, ge=0, lt=2**63, description="of members and noise")
    reward: str | None = Field(
        None,
        max_length=128,
        description="a reward of the environment's task, or learned, the model's; returns need it",
    )
    environment: str | None = Field(
        None, max_length=256, description="whose rewards are meant, where several tasks would do"
    )
    discount: float = Field(1.0, ge=0, le=1, description="of each step relative to the one before")
    risk_aversion: float = Field(
        0.0, ge=0, le=1e6, description="standard deviations over particles to subtract"
    )
