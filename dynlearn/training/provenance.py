"""How a published model was made: its ``training.json``."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, JsonValue

from dynlearn.config import TrainConfig
from dynlearn.errors import NotFound
from dynlearn.storage.files import read_json, write_json
from dynlearn.storage.uri import without_secrets

TRAINING_FILE = "training.json"
ENVIRONMENT_KWARGS = "environment made with"
"""What of ``made`` says how the environment of the training data was made, where it was not as
registered."""
ENVIRONMENT_SEEDS = "seeds of the environment"
"""What of ``made`` says which seeds it takes, where it does not take any."""


class MadeWith(NamedTuple):
    """Of what environment a model's data were.

    Attributes:
        environment: its id; None where that is unknown.
        kwargs: what it was made with.
        seed_range: the lowest and the highest seed that it takes; None where it takes any.
    """

    environment: str | None
    kwargs: Mapping[str, JsonValue]
    seed_range: tuple[int, int] | None = None


class _Made(BaseModel):
    made: dict[str, JsonValue]


class _Training(_Made):
    config: TrainConfig


def write_training(
    folder: Path,
    config: TrainConfig,
    made: Mapping[str, JsonValue],
    held_out: str,
    history: Sequence[Mapping[str, float]],
) -> None:
    """Write how a model was made beside it.

    Args:
        folder: of the model.
        config: that it was trained with.
        made: from what, by what and how long, in words.
        held_out: which episodes judged it, test or validation.
        history: NLL and RMSE of training and validation at every validation.
    """
    versions = {name: version(name) for name in ("dynlearn", "torch", "numpy")}
    provenance = {
        "config": config.model_dump(mode="json", exclude={"resume"})
        | {"dataset": without_secrets(config.dataset)},
        "made": dict(made),
        "versions": versions | {"python": platform.python_version()},
        "held_out_episodes": held_out,
        "history": list(history),
    }
    write_json(folder / TRAINING_FILE, provenance)


def read_training(folder: Path) -> tuple[TrainConfig, dict[str, JsonValue]]:
    """Return the configuration that a published model was trained with, and how it was made.

    Raises:
        NotFound: the model was published without.
        CorruptData: the file is altered.
    """
    training = read_json(folder / TRAINING_FILE, _Training)
    return training.config, training.made


def read_environment(folder: Path) -> MadeWith:
    """Return of what environment the data of a published model are.

    Raises:
        CorruptData: the file is altered.
    """
    try:
        # Whatever it was trained with, by whichever version.
        made = read_json(folder / TRAINING_FILE, _Made).made
    except NotFound:
        # Published by hand, without a word of how it was made.
        return MadeWith(None, {})
    environment, kwargs = made.get("environment"), made.get(ENVIRONMENT_KWARGS)
    seed_range = None
    match made.get(ENVIRONMENT_SEEDS):
        case [int(low), int(high)]:
            seed_range = low, high
    return MadeWith(
        environment if isinstance(environment, str) else None,
        kwargs if isinstance(kwargs, dict) else {},
        seed_range,
    )
