"""What is published of a training run: the model, how it was made and how good it is."""

from pathlib import Path

from pydantic import JsonValue

from dynlearn.config import TrainConfig
from dynlearn.data.blocks import BlockStore
from dynlearn.data.store import EpisodeStore
from dynlearn.evaluation import Metrics, evaluate, write_report
from dynlearn.objectives import make_objective
from dynlearn.registry import ModelVersion, Registry
from dynlearn.storage.uri import without_secrets
from dynlearn.task import describe_columns
from dynlearn.training.dataset import split_dataset
from dynlearn.training.fit import TrainedModel
from dynlearn.training.provenance import ENVIRONMENT_KWARGS, write_training

_EVALUATION_HORIZON = 15


def publish(
    config: TrainConfig, registry: Registry, store: EpisodeStore, trained: TrainedModel
) -> tuple[ModelVersion, Metrics]:
    """Evaluate a model on its test episodes and publish it as the next version of its name.

    Args:
        config: that it was trained with.
        registry: to publish in.
        store: the dataset that it was trained on.
        trained: the model and its training.

    Returns:
        The version and its metrics, on the validation episodes where ``test_share`` is zero.

    Raises:
        NumericalFailure: a prediction is not finite.
    """
    store, split = split_dataset(config, store)
    held_out = split.test if len(split.test) else split.validation
    header = store.header
    columns = describe_columns(header.environment, trained.model.spec.observation_space)
    evaluation = evaluate(
        trained.model,
        store.table(held_out),
        columns,
        _EVALUATION_HORIZON,
        config.seed,
        trained.reward,
    )
    made: dict[str, JsonValue] = {
        "environment": header.environment,
        **({ENVIRONMENT_KWARGS: header.env_kwargs} if header.env_kwargs else {}),
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
        write_report(
            folder,
            config.model,
            trained.model.spec,
            made,
            evaluation,
            trained.history,
            columns,
        )

    return registry.publish(config.model, write), evaluation.metrics


def _parts(store: EpisodeStore) -> str:
    if isinstance(store, BlockStore):
        return f"blocks; {store.describe()}"
    return "episodes"
