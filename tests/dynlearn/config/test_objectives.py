from typing import Any, get_args

import pytest
from pydantic import ValidationError

from dynlearn.config import TrainConfig
from dynlearn.config.choices import ObjectiveName
from dynlearn.config.objectives import (
    OPTIONS,
    SETTINGS,
    BetaNLLSettings,
    NLLSettings,
    TrustableSettings,
)


def _config(**options: Any) -> TrainConfig:
    return TrainConfig(**{"dataset": "d", "model": "m", **options})


def test_every_named_objective_has_settings() -> None:
    assert set(SETTINGS) == set(get_args(ObjectiveName))
    assert all(option.description for option in OPTIONS.values())


def test_options_are_flat_outside_and_the_objectives_own_inside() -> None:
    assert _config().objective == BetaNLLSettings(beta=0.5)
    assert _config(beta=0.25).objective == BetaNLLSettings(beta=0.25)
    assert _config(beta="0.25").objective == BetaNLLSettings(beta=0.25)
    assert _config(objective="nll").objective == NLLSettings()
    flat = _config(objective="trustable", beta=0.5, covariance_bound=None, trust_region="w2")
    assert flat.objective == TrustableSettings(beta=0.5, covariance_bound=None, trust_region="w2")
    settings = TrustableSettings(beta=0.5)
    assert _config(objective=settings, natural_step=0.2).objective == TrustableSettings(
        beta=0.5, natural_step=0.2
    )
    assert _config(objective={"name": "beta_nll", "beta": 1}).objective.beta == 1


def test_a_configuration_is_saved_flat() -> None:
    saved = _config(beta=0.25).model_dump(mode="json")
    assert (saved["objective"], saved["beta"]) == ("beta_nll", 0.25)
    assert "natural_step" not in saved
    assert _config(objective="nll").model_dump(include={"model"}) == {"model": "m"}


def test_a_configuration_saved_before_is_read_as_it_was_meant() -> None:
    """It has the options of all objectives, those that nobody had set at their defaults."""
    saved = {
        "beta": None,
        "trust_region": "kl",
        "mean_bound": None,
        "covariance_bound": 0.1,
        "natural_step": 0.1,
        "regression_metric": "kl",
        "refresh_epochs": 1,
        "old_distributions": "samples",
        "memory_limit_gib": 4.0,
    }
    assert _config(objective="beta_nll", **saved).objective == BetaNLLSettings(beta=0.5)
    assert _config(objective="mse", **saved).objective == SETTINGS["mse"]()
    trustable = _config(objective="trustable", **{**saved, "beta": 0.3}).objective
    assert trustable == TrustableSettings(beta=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "trustible"}, "got 'trustible'; did you mean trustable"),
        ({"objective": {"name": "nll", "beta": 1}}, "Extra inputs are not permitted"),
        ({"objective": 3}, "objective"),
    ],
)
def test_what_is_no_objective_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        _config(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.3, "objective": "mse"}, "beta: .* got 0.3; .* take beta_nll or trustable"),
        ({"mean_bound": 1.0}, "mean_bound: .* take trust_region_nll or trustable"),
        (
            {"beta": 0.3, "objective": "trustable", "regression_metric": "w2"},
            "beta: .* w2, got 0.3; .* take kl",
        ),
        ({"covariance_bound": None}, "covariance_bound: .* objective beta_nll"),
        ({"natural_step": 0.5, "objective": "trust_region_nll"}, "natural_step: .* trustable"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        _config(**options)


@pytest.mark.parametrize("objective", get_args(ObjectiveName))
def test_a_saved_configuration_is_one_to_train_with(objective: str) -> None:
    config = _config(objective=objective)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
