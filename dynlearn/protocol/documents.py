"""The JSON of the Open Inference Protocol v2: requests and answers.

Sources: the protocol's ``inference_rest.md`` (kserve/open-inference-protocol) and
``extension_binary_data.md`` (triton-inference-server/server).
"""

import reprlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Datatype = Literal["FP32", "FP64", "INT32", "INT64"]
# More would be more numbers than any memory holds.
Length = Annotated[int, Field(ge=1, le=2**40)]
Name = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]


class Document(BaseModel):
    """A part of a message; keys that extensions of the protocol add are passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


def _refuse(value: Any) -> None:
    if value:
        raise ValueError(
            f"expected it left out, for there is no such thing here, got {reprlib.repr(value)}"
        )


NotOffered = Annotated[None, BeforeValidator(_refuse), Field(exclude=True)]
"""What would change the answer, so that to pass it over would be to answer something else."""


class TensorParameters(Document):
    """What is said of a tensor beside its shape."""

    shared_memory_region: NotOffered = None
    binary_data_size: int | None = Field(
        None, ge=0, description="bytes of this tensor after the JSON, in place of data"
    )


class TensorDocument(Document):
    """A tensor in a request or an answer."""

    name: Name
    datatype: Datatype
    shape: list[Length] = Field(min_length=1, max_length=8)
    parameters: TensorParameters | None = None
    data: list[Any] | None = Field(None, description="numbers in row-major order, flat or nested")


class OutputParameters(Document):
    """How one output is to travel."""

    classification: NotOffered = None
    class_count: NotOffered = None
    shared_memory_region: NotOffered = None
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
