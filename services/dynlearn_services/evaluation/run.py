"""Evaluation of a published model, on its own test episodes or on another dataset."""

import logging
import shutil
from pathlib import Path

from dynlearn.compute import pick_device
from dynlearn.config import EvaluateConfig
from dynlearn.data.store import EpisodeStore
from dynlearn.errors import InvalidInput
from dynlearn.evaluation import Metrics, evaluate, write_report
from dynlearn.models.published import load_published
from dynlearn.registry import Registry
from dynlearn.storage.uri import without_secrets
from dynlearn.task import describe_columns
from dynlearn.training.dataset import split_dataset
from dynlearn.training.provenance import read_environment, read_training
from dynlearn_services.home import Home

_log = logging.getLogger(__name__)


def run_evaluation(config: EvaluateConfig, home: Home) -> tuple[Metrics, Path]:
    """Evaluate a model version and return its metrics and the folder of figures and card.

    Raises:
        NotFound: there is no such model or dataset.
        InvalidInput: the dataset is of another environment, or the model's own has no test share.
    """
    version = Registry(home.models).resolve(config.model)
    training, made = read_training(version.folder)
    dataset = config.dataset or training.dataset
    store = EpisodeStore.open(home.dataset(dataset))
    if store.header.environment != made["environment"]:
        raise InvalidInput(
            f"expected a dataset of {made['environment']}, got one of {store.header.environment}"
        )
    made_with = read_environment(version.folder)[1]
    if store.header.env_kwargs != made_with:
        _log.warning(
            "warning: expected episodes of %s as in the model's data, made with %s, got some made "
            "with %s; the model has learned from another",
            store.header.environment,
            made_with,
            store.header.env_kwargs,
        )
    episodes = None
    if config.dataset is None:
        store, split = split_dataset(training, store)
        episodes = split.test
        if len(episodes) == 0:
            raise InvalidInput(
                "expected a model trained with a test share above zero, got none; name a --dataset"
            )
    shown = without_secrets(dataset)
    place = shown.partition("?")[0]
    folder = home.evaluation(f"{version.name}-{version.version}-{Path(place).name}")
    home.require_writable(folder)
    device = pick_device(config.device)
    model, reward = load_published(version.folder, device, config.precision)
    columns = describe_columns(store.header.environment, model.spec.observation_space)
    evaluation = evaluate(
        model, store.table(episodes), columns, config.horizon, config.seed, reward
    )
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_report(
        folder,
        f"{version.name} {version.version}",
        model.spec,
        {
            **made,
            "learned from": without_secrets(training.dataset),
            "dataset": shown,
            "dataset checksum": store.header.checksum,
            "precision of prediction": config.precision,
        },
        evaluation,
        [],
        columns,
    )
    return evaluation.metrics, folder
