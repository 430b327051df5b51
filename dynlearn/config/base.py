"""What all configurations share: the frozen model, seeds, and lists with commas between."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _split_at_commas(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


Integers = Annotated[tuple[int, ...], BeforeValidator(_split_at_commas)]
"""Whole numbers; on the command line with commas between them."""

Names = Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)]
"""Names, of models or hosts; on the command line with commas between them."""

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]

PRECISION = (
    "of the products between hidden layers; bfloat16 is rougher, and faster where the processor "
    "has units for it"
)


class Config(BaseModel):
    """A frozen set of options; unknown keys are refused."""

    # Built when first used: the command line's help needs the fields alone.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
