"""What is published of a training run: the model, how it was made and how good it is."""

import logging
from pathlib import Path

from pydantic import JsonValue

from dynlearn.config import TrainConfig
from dynlearn.data.blocks import BlockStore
from dynlearn.data.store import EpisodeStore
from dynlearn.errors import DynlearnError
from dynlearn.evaluation import Metrics, evaluate, write_report, write_unmeasured
from dynlearn.objectives import make_objective
from dynlearn.registry import CHAMPION, ModelVersion, Registry
from dynlearn.storage.uri import without_secrets
from dynlearn.task import describe_columns
from dynlearn.training.dataset import split_dataset
from dynlearn.training.fit import TrainedModel
from dynlearn.training.provenance import ENVIRONMENT_KWARGS, ENVIRONMENT_SEEDS, write_training

_log = logging.getLogger(__name__)

_EVALUATION_HORIZON = 15


class NotEvaluated(DynlearnError):
    """A version that is published without figures, which could not be had."""


def publish(
    config: TrainConfig, registry: Registry, store: EpisodeStore, trained: TrainedModel
) -> tuple[ModelVersion, Metrics]:
    """Evaluate a model on its test episodes and publish it as the next version of its name.

    A model that could not be evaluated, or is worse than predicting no change, is published
    without becoming champion, unless there is no other.

    Args:
        config: that it was trained with.
        registry: to publish in.
        store: the dataset that it was trained on.
        trained: the model and its training.

    Returns:
        The version and its metrics, on the validation episodes where ``test_share`` is zero.

    Raises:
        NotEvaluated: the version is published, but its evaluation failed.
    """
    store, split = split_dataset(config, store)
    held_out = split.test if len(split.test) else split.validation
    header = store.header
    columns = describe_columns(header.environment, trained.model.spec.observation_space)
    evaluation = failure = None
    try:
        evaluation = evaluate(
            trained.model,
            store.table(held_out),
            columns,
            _EVALUATION_HORIZON,
            config.seed,
            trained.reward,
        )
    except DynlearnError as error:
        failure = error
    made: dict[str, JsonValue] = {
        "environment": header.environment,
        **({ENVIRONMENT_KWARGS: header.env_kwargs} if header.env_kwargs else {}),
        **({ENVIRONMENT_SEEDS: list(header.seed_range)} if header.seed_range else {}),
        "dataset": without_secrets(config.dataset),
        "dataset checksum": header.checksum,
        "objective": make_objective(config).describe(),
        "covariance": config.covariance,
        "updates": trained.updates,
        "trained on": f"{len(split.train)} {_parts(store)}",
        "seed": config.seed,
    }

    def write(folder: Path) -> None:
        trained.model.save(folder)
        if trained.reward is not None:
            trained.reward.save(folder)
        write_training(
            folder,
            config,
            made,
            "test" if len(split.test) else "validation",
            trained.history,
        )
        if evaluation is None:
            write_unmeasured(folder, config.model, made, str(failure))
            return
        write_report(
            folder,
            config.model,
            trained.model.spec,
            made,
            evaluation,
            trained.history,
            columns,
        )

    is_good = evaluation is not None and not evaluation.metrics.worse_than_no_change
    version = registry.publish(config.model, write, promote=is_good)
    if evaluation is None:
        raise NotEvaluated(
            f"model {version.name} version {version.version} is published, but could not be "
            f"evaluated: {failure}; mend that, or measure it on other data with `dynlearn evaluate "
            f"{version.name}/{version.version} --dataset DATASET`"
        ) from failure
    if not is_good:
        _log.warning("%s", _doubt(version, evaluation.metrics, registry))
    return version, evaluation.metrics


def _doubt(version: ModelVersion, metrics: Metrics, registry: Registry) -> str:
    champion = registry.aliases(version.name).get(CHAMPION)
    kept = "" if champion == version.version else f", and version {champion} stays champion"
    return (
        f"model {version.name} version {version.version} is worse on its {metrics.episodes} "
        f"held-out episodes than predicting no change (NLL {metrics.nll:.4g}, of no change "
        f"{metrics.nll_of_no_change:.4g}){kept}; train for longer or on more episodes"
    )


def _parts(store: EpisodeStore) -> str:
    if isinstance(store, BlockStore):
        return f"blocks; {store.describe()}"
    return "episodes"
