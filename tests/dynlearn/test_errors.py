from typing import Self

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from dynlearn.errors import (
    CorruptData,
    DeadlineExceeded,
    DynlearnError,
    Forbidden,
    InvalidInput,
    NotFound,
    NumericalFailure,
    TooLarge,
    Unauthorized,
    Unavailable,
    describe_fault,
    nearest,
)


def test_exit_codes_and_http_statuses() -> None:
    codes = {
        DynlearnError: (1, 500),
        InvalidInput: (2, 400),
        NotFound: (2, 404),
        CorruptData: (2, 400),
        TooLarge: (2, 413),
        Unauthorized: (2, 401),
        Forbidden: (2, 403),
        Unavailable: (1, 503),
        DeadlineExceeded: (1, 504),
        NumericalFailure: (1, 500),
    }
    assert {kind: (kind.exit_code, kind.http_status) for kind in codes} == codes


def test_a_passed_deadline_is_a_way_of_being_unavailable() -> None:
    assert issubclass(DeadlineExceeded, Unavailable)


def test_nearest_names_what_is_close_else_what_is_known() -> None:
    assert nearest("slyde", ["slide", "fetch"]) == "did you mean slide?"
    assert nearest("zzz", ["slide", "fetch"]) == "known: fetch, slide"
    assert nearest("zzz", []) == "there are none yet"


class _Step(BaseModel):
    size: int = Field(ge=1)
    name: str = "a"

    @model_validator(mode="after")
    def _is_allowed(self) -> Self:
        if self.name == "forbidden":
            raise ValueError("expected another name, got forbidden")
        return self


class _Plan(BaseModel):
    steps: list[_Step]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"steps": [{"size": 2}, {"size": 0}]}', "steps.1.size: expected greater than or"),
        ('{"steps": [{"size": "two"}]}', "steps.0.size: expected a valid integer"),
        ('{"steps": [{"size": 1, "name": "forbidden"}]}', "steps.0: expected another name, got"),
        ('{"steps": 3}', "steps: expected a valid array, got 3"),
        ('{"stairs": []}', "steps: Field required"),
        ("[1]", "plan: expected an object"),
        ("{", "plan: Invalid JSON: EOF while parsing an object"),
    ],
)
def test_a_fault_says_where_it_is_what_was_expected_and_what_came(text: str, fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Plan.model_validate_json(text)
    assert describe_fault(caught.value, "plan").startswith(fault)
