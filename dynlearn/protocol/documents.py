"""The JSON of the Open Inference Protocol v2, and what dynlearn's tensors are called in it.

Sources: the protocol's ``inference_rest.md`` (kserve/open-inference-protocol) and
``extension_binary_data.md`` (triton-inference-server/server).

Shapes: E members, O observation, D predicted columns.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from dynlearn.config import Covariance, PredictionPrecision
from dynlearn.spaces import ActionSpace

Datatype = Literal["FP32", "FP64", "INT32", "INT64"]
Name = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]

OUTPUTS = {
    "mean": "next_observation_mean",
    "variance": "next_observation_variance",
    "covariance": "next_observation_covariance",
    "aleatoric": "aleatoric_covariance",
    "epistemic": "epistemic_covariance",
    "member_means": "member_means",
    "member_variances": "member_variances",
    "member_scale_trils": "member_scale_trils",
}
"""The tensors of a prediction: what each attribute of a prediction is called on the wire."""

ROLLOUT_OUTPUTS = {
    "returns": "returns",
    "return_std": "return_std",
    "mean": "trajectory_mean",
    "variance": "trajectory_variance",
    "covariance": "trajectory_covariance",
    "particles": "particles",
}
"""The tensors of a rollout, as `OUTPUTS`; the first two need a reward."""

REWARD_MEAN = "reward_mean"
"""The learned reward at each member's mean, averaged; of models that have learned one."""

SAMPLE, SAMPLE_MEMBER = "next_observation_sample", "sample_member"
"""The outputs of a draw: next observations, and which member each comes from."""


class Document(BaseModel):
    """A part of a message; keys that extensions of the protocol add are passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class TensorParameters(Document):
    """What is said of a tensor beside its shape."""

    binary_data_size: int | None = Field(
        None, ge=0, description="bytes of this tensor after the JSON, in place of data"
    )


class TensorDocument(Document):
    """A tensor in a request or an answer."""

    name: Name
    datatype: Datatype
    shape: list[PositiveInt] = Field(min_length=1, max_length=8)
    parameters: TensorParameters | None = None
    data: list[Any] | None = Field(None, description="numbers in row-major order, flat or nested")


class OutputParameters(Document):
    """How one output is to travel."""

    binary_data: bool | None = None


class OutputDocument(Document):
    """An output that is asked for."""

    name: Name
    parameters: OutputParameters | None = None


class RequestParameters(Document):
    """How all outputs are to travel, unless they say otherwise, and what else a caller adds."""

    model_config = ConfigDict(extra="allow")

    binary_data_output: bool = False


class RequestDocument(Document):
    """The JSON of an inference request."""

    id: str | None = Field(None, max_length=1024)
    inputs: list[TensorDocument] = Field(min_length=1, max_length=16)
    outputs: list[OutputDocument] | None = Field(None, max_length=64)
    parameters: RequestParameters | None = None


class ResponseDocument(Document):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[TensorDocument] = Field(max_length=64)


class Metadata(BaseModel):
    """A part of a model's description; unbounded actions have the bounds "Infinity"."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class TensorMetadata(Metadata):
    """A tensor that a model takes or gives; -1 stands for the rows of a request."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelParameters(Metadata):
    """What a planner must know of a served model.

    Attributes:
        version: the one that this describes.
        observation_size: O.
        action_space: the action's bounds, or its choices.
        observation_columns: the observation columns that the model sees.
        target_columns: the D observation columns that it predicts.
        members: E.
        covariance: of each member: variances alone, or a full matrix.
        full_state: whether every column is predicted, in order, so that rollouts can go on.
        learned_reward: whether the model has learned a reward.
        context_size: G, the columns of the goal that the learned reward is of.
        precision: of the products between the members' hidden layers.
        rewards: the names of the rewards that rollouts can be judged by, by the environment whose
            task they are of.
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
    rewards: Mapping[str, tuple[str, ...]] = {}


class ModelMetadata(Metadata):
    """A model as the protocol describes it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: ModelParameters
