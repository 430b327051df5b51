"""A model as the protocol describes it, and what a planner must know of it.

Shapes: E members, O observation, D predicted columns.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from dynlearn.config.choices import Covariance, PredictionPrecision
from dynlearn.protocol.documents import Datatype
from dynlearn.spaces import ActionSpace


class Metadata(BaseModel):
    """A part of a model's description; unbounded actions have the bounds "Infinity"."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class TensorMetadata(Metadata):
    """A tensor that a model takes or gives; -1 stands for the rows of a request."""

    name: str
    datatype: Datatype
    shape: list[int]


class Limits(Metadata):
    """What one request may be of, and what is refused beyond it with 413.

    Attributes:
        max_rows: of a prediction; of a rollout, the particles of all its sequences.
        max_row_steps: of a rollout, its rows, or 256 if they are fewer, times its steps; None where
            the server is too old.
        max_body_bytes: of a body, after decompression.
        max_answer_bytes: of an answer.
    """

    max_rows: int
    max_row_steps: int | None = None
    max_body_bytes: int
    max_answer_bytes: int


class ModelParameters(Metadata):
    """What a planner must know of a served model.

    Attributes:
        version: the one that this describes.
        observation_size: O.
        observation_datatype: FP64 where FP32 is too coarse for what the model was trained on; an
            observation in the other is taken too.
        action_space: the action's bounds, or its choices.
        observation_columns: the observation columns that the model sees.
        target_columns: the D observation columns that it predicts.
        members: E.
        covariance: of each member: variances alone, or a full matrix.
        full_state: whether every column is predicted, in order, so that rollouts can go on.
        learned_reward: whether the model has learned a reward.
        context_size: G, the columns of the goal that the rewards are of.
        precision: of the products between the members' hidden layers.
        rewards: the names of the rewards that rollouts can be judged by, by the environment that
            the model is of, where it has a task.
        environment: the id of the environment whose data it was trained on; None where that is
            unknown.
        env_kwargs: what that environment was made with, over what its registration says.
        seed_range: the lowest and the highest seed that it takes; None where it takes any.
        limits: of one request; None where the server is too old to say.
    """

    version: str
    observation_size: int
    action_space: ActionSpace
    observation_columns: tuple[int, ...]
    target_columns: tuple[int, ...]
    members: int
    covariance: Covariance
    full_state: bool
    learned_reward: bool = False
    context_size: int = 0
    precision: PredictionPrecision = "float32"
    observation_datatype: Literal["FP32", "FP64"] = "FP32"
    rewards: Mapping[str, tuple[str, ...]] = {}
    environment: str | None = None
    env_kwargs: Mapping[str, JsonValue] = {}
    seed_range: tuple[int, int] | None = None
    limits: Limits | None = None


class ModelMetadata(Metadata):
    """A model as the protocol describes it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: ModelParameters
