"""What all configurations share: the frozen model, seeds, lists, and what environments take."""

import json
from typing import Annotated, Any, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from dynlearn.numbers import holds_flags


def _split_at_commas(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _parse_json(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{_JSON_EXPECTED}, got {value[:100]!r}: {error}") from error
    if not isinstance(value, dict | None):
        raise ValueError(f"{_JSON_EXPECTED}, got {value!r}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_JSON_EXPECTED = 'expected a JSON object such as {"g": 2.0}'


Integers = Annotated[tuple[int, ...], BeforeValidator(_split_at_commas)]
"""Whole numbers; on the command line with commas between them."""

Columns = Annotated[Integers, Field(min_length=1)]
"""At least one column."""

Names = Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)]
"""Names, of models or hosts; on the command line with commas between them."""

EnvKwargs = Annotated[dict[str, JsonValue], BeforeValidator(_parse_json)]
"""What an environment is made with; on the command line as JSON."""

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


def _split_range(value: Any) -> Any:
    if isinstance(value, str):
        value = value.split(":")
    if not isinstance(value, list | tuple) or len(value) != 2:
        # YAML reads 1:30 as ninety.
        raise ValueError(f"expected LOW:HIGH (in YAML in quotes, or [LOW, HIGH]), got {value!r}")
    return value


def _check_range(value: tuple[int, int]) -> tuple[int, int]:
    low, high = value
    if low > high:
        raise ValueError(f"expected LOW at most HIGH, got {low}:{high}")
    return value


SeedRange = Annotated[
    tuple[Seed, Seed], BeforeValidator(_split_range), AfterValidator(_check_range)
]
"""The lowest and the highest seed that an environment takes; on the command line LOW:HIGH."""

PRECISION = (
    "of the products between hidden layers; bfloat16 is rougher, and faster where the processor "
    "has units for it"
)


class Config(BaseModel):
    """A frozen set of options; unknown keys are refused, and flags where numbers are expected."""

    # Built when first used: the command line's help needs the fields alone.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _no_flag_is_a_number(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if field is not None and field.annotation is not bool and holds_flags(value):
                raise ValueError(f"{name}: expected no flag, got {value!r}")
        return values

    def __hash__(self) -> int:
        """Return the hash of the options as JSON, for some are mappings."""
        return hash(self.model_dump_json())
