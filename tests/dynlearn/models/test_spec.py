from collections.abc import Callable

import pytest
from pydantic import ValidationError

from dynlearn.models.spec import ModelSpec


def test_a_spec_survives_json(make_spec: Callable[..., ModelSpec]) -> None:
    spec = make_spec(target_columns=(2, 0), absolute_columns=(0,))
    text = spec.model_dump_json()
    assert ModelSpec.model_validate_json(text) == spec
    assert "null" not in text.replace('"goal":null', "")


def test_columns_that_are_not_there_are_named(make_spec: Callable[..., ModelSpec]) -> None:
    with pytest.raises(ValidationError, match=r"expected distinct columns 0 to 2, got \(3,\)"):
        make_spec(target_columns=(3,))
    with pytest.raises(ValidationError, match="expected some of the target columns"):
        make_spec(target_columns=(0,), absolute_columns=(1,))


def test_the_regressor_is_from_columns_and_action_to_targets(
    make_spec: Callable[..., ModelSpec],
) -> None:
    spec = make_spec(
        observation_columns=(2, 0), target_columns=(1,), absolute_columns=(1,), head="std"
    )
    assert (spec.regressor.inputs, spec.regressor.targets, spec.is_delta) == (4, 1, (False,))
    assert (spec.regressor.members, spec.regressor.hidden) == (3, (8, 8))
    assert (spec.regressor.activation, spec.regressor.head) == ("tanh", "std")
    assert make_spec(absolute_columns=(1,)).is_delta == (True, False, True)
