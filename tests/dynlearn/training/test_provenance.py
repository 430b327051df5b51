import json
from pathlib import Path

import pytest

from dynlearn.config import TrainConfig
from dynlearn.config.objectives import NLLSettings, TrustableSettings
from dynlearn.errors import CorruptData, NotFound
from dynlearn.training.provenance import (
    ENVIRONMENT_SEEDS,
    TRAINING_FILE,
    MadeWith,
    read_environment,
    read_training,
    write_training,
)

# As written when every option of every objective was one of the training's own.
BEFORE = {
    "dataset": "slide",
    "model": "slide",
    "objective": "nll",
    "beta": None,
    "covariance": "diagonal",
    "members": 5,
    "elites": None,
    "hidden": [128, 128, 128],
    "activation": "silu",
    "separate_networks": False,
    "initialization": "lecun_uniform",
    "observation_columns": None,
    "target_columns": None,
    "absolute_columns": [],
    "learn_reward": False,
    "learning_rate": 0.001,
    "schedule": "cosine",
    "batch_size": 256,
    "precision": "float32",
    "max_updates": 20000,
    "validate_every": 500,
    "patience": 20,
    "select_by": "nll",
    "bootstrap": True,
    "validation_share": 0.1,
    "test_share": 0.1,
    "trust_region": "kl",
    "mean_bound": None,
    "covariance_bound": 0.1,
    "natural_step": 0.1,
    "regression_metric": "kl",
    "refresh_epochs": 1,
    "old_distributions": "samples",
    "memory_limit_gib": 4.0,
    "member_groups": None,
    "workers": 1,
    "checkpoint_every": 1000,
    "device": "auto",
    "seed": 0,
}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    settings = TrustableSettings(beta=0.3, covariance_bound=None)
    config = TrainConfig(dataset="d", model="m", objective=settings)
    write_training(tmp_path, config, {"updates": 7}, "test", [{"update": 7}])
    assert read_training(tmp_path) == (config, {"updates": 7})
    written = json.loads((tmp_path / TRAINING_FILE).read_text())["config"]
    assert (written["objective"], written["beta"]) == ("trustable", 0.3)


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({}, NLLSettings()),
        ({"objective": "trustable"}, TrustableSettings()),
        (
            {"objective": "trustable", "beta": 0.3, "mean_bound": 0.5},
            TrustableSettings(beta=0.3, mean_bound=0.5),
        ),
    ],
)
def test_a_model_published_before_objectives_had_settings(
    tmp_path: Path, changes: dict[str, object], settings: object
) -> None:
    content = {"config": BEFORE | changes, "made": {}}
    (tmp_path / TRAINING_FILE).write_text(json.dumps(content))
    config, _ = read_training(tmp_path)
    assert config == TrainConfig(dataset="slide", model="slide", objective=settings)


def test_without_the_file_or_with_another_there_is_nothing_to_tell(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=TRAINING_FILE):
        read_training(tmp_path)
    (tmp_path / TRAINING_FILE).write_text('{"config": {}}')
    with pytest.raises(CorruptData, match=TRAINING_FILE):
        read_training(tmp_path)


def test_the_environment_is_read_whatever_the_configuration(tmp_path: Path) -> None:
    """Of a model that another version of dynlearn has trained, or that is published by hand."""
    assert read_environment(tmp_path) == MadeWith(None, {})
    content = {"config": {"target_columns": [], "unheard": 1}, "made": {"environment": "Walk-v0"}}
    (tmp_path / TRAINING_FILE).write_text(json.dumps(content))
    assert read_environment(tmp_path) == MadeWith("Walk-v0", {})
    content["made"] |= {ENVIRONMENT_SEEDS: [0, 99]}  # type: ignore[operator]
    (tmp_path / TRAINING_FILE).write_text(json.dumps(content))
    assert read_environment(tmp_path) == MadeWith("Walk-v0", {}, (0, 99))
