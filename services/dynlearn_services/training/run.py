"""A training run: fit on the training episodes, judge on the test episodes, publish."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue

from dynlearn.config import TrainConfig
from dynlearn.data.store import EpisodeStore
from dynlearn.errors import DynlearnError, InvalidInput, NumericalFailure
from dynlearn.evaluation import Metrics, evaluate, write_report
from dynlearn.objectives import make_objective
from dynlearn.registry import ModelVersion, Registry
from dynlearn.task import describe_columns
from dynlearn.training.dataset import TrainedModel, reward_checkpoint, split_dataset, train
from dynlearn.training.member_group import GroupFactory, MemberGroup
from dynlearn.training.provenance import write_training
from dynlearn.training.trainer import TrainingProgress
from dynlearn_services.home import Home
from dynlearn_services.training.remote_group import remote_groups

_CHECKPOINT = "checkpoint.safetensors"
_EVALUATION_HORIZON = 15


class TrainingStopped(DynlearnError):
    """A signal ended the run; its state is saved."""

    exit_code = 130


def run_training(
    config: TrainConfig,
    home: Home,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    on_reward_progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> tuple[ModelVersion, Metrics]:
    """Train, evaluate on the test episodes and publish a model version.

    SIGINT and SIGTERM save the run before it ends; SIGKILL loses what came after the last
    checkpoint. With ``resume`` it goes on to the very same weights.

    Args:
        config: what to fit to which dataset, and how.
        home: where the datasets, the runs and the models are.
        on_progress: called after every validation.
        on_reward_progress: called after every validation of the reward, where it is learned.

    Returns:
        The version and its metrics on the test episodes (on the validation episodes where
        ``test_share`` is zero).

    Raises:
        InvalidInput: the configuration does not suit the dataset, there is an earlier run that was
            not asked to go on, or none that could.
        TrainingStopped: a signal ended the run.
    """
    run = home.run(config.model)
    home.require_writable(run, home.models)
    store = EpisodeStore.open(home.dataset(config.dataset))
    checkpoint = run / _CHECKPOINT
    _check_resumption(config, checkpoint)
    with (
        _tensorboard(run) as log,
        _stop_on_signals() as should_stop,
        _groups(config) as (local, make_group),
    ):

        def report(progress: TrainingProgress) -> None:
            log(progress, "")
            on_progress(progress)

        def report_reward(progress: TrainingProgress) -> None:
            log(progress, "reward/")
            on_reward_progress(progress)

        try:
            trained = train(
                local, store, checkpoint, report, should_stop, make_group, report_reward
            )
        except NumericalFailure:
            # There is nothing to go on with: the mend is another configuration.
            _remove(checkpoint)
            raise
    if trained is None:
        saved = checkpoint if checkpoint.exists() else reward_checkpoint(checkpoint)
        raise TrainingStopped(
            f"stopped; go on with `dynlearn train --resume` and the same options ({saved})"
        )
    published = _publish(config, home, store, trained)
    _remove(checkpoint)
    return published


def _remove(checkpoint: Path) -> None:
    for file in (checkpoint, reward_checkpoint(checkpoint)):
        file.unlink(missing_ok=True)


@contextmanager
def _groups(config: TrainConfig) -> Iterator[tuple[TrainConfig, GroupFactory]]:
    """Give the configuration of this process's part, and what makes the groups of members."""
    if config.workers == 1:
        yield config, MemberGroup
        return
    with remote_groups(config) as make_group:
        # The workers have the devices; here the ensemble is only gathered.
        yield config.model_copy(update={"device": "cpu"}), make_group


def _check_resumption(config: TrainConfig, checkpoint: Path) -> None:
    cut_off = [file for file in (checkpoint, reward_checkpoint(checkpoint)) if file.exists()]
    if config.resume and not cut_off:
        raise InvalidInput(
            f"--resume: expected a run of model {config.model} that was cut off, got none in "
            f"{checkpoint.parent}; start one without --resume"
        )
    if not config.resume and cut_off:
        raise InvalidInput(
            f"expected no run of model {config.model} that was cut off, got "
            f"{' and '.join(map(str, cut_off))}; go on with it by --resume, or delete it to start "
            "over"
        )


def _publish(
    config: TrainConfig, home: Home, store: EpisodeStore, trained: TrainedModel
) -> tuple[ModelVersion, Metrics]:
    split = split_dataset(config, store)
    held_out = split.test if len(split.test) else split.validation
    header = store.header
    columns, focus = describe_columns(header.environment, trained.model.spec.observation_size)
    evaluation = evaluate(
        trained.model,
        store.table(held_out),
        columns,
        focus,
        _EVALUATION_HORIZON,
        config.seed,
        trained.reward,
    )
    made: dict[str, JsonValue] = {
        "environment": header.environment,
        "dataset": config.dataset,
        "dataset checksum": header.checksum,
        "objective": make_objective(config).describe(),
        "covariance": config.covariance,
        "updates": trained.updates,
        "trained on": f"{len(split.train)} episodes",
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
            focus,
        )

    return Registry(home.models).publish(config.model, write), evaluation.metrics


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Callable[[TrainingProgress, str], None]]:
    from torch.utils.tensorboard import SummaryWriter

    writers: list[SummaryWriter] = []

    def log(progress: TrainingProgress, prefix: str) -> None:
        # Opened at the first figures: a run that is refused leaves no log.
        if not writers:
            writers.append(SummaryWriter(str(folder / "tensorboard")))
        writer, step = writers[0], progress.update
        writer.add_scalar(f"{prefix}train/updates_per_s", progress.updates_per_s, step)
        for tag, values in (
            ("train/nll", progress.train_nll),
            ("train/rmse", progress.train_rmse),
            ("validation/nll", progress.validation_nll),
            ("validation/rmse", progress.validation_rmse),
        ):
            for member, value in enumerate(values):
                writer.add_scalar(f"{prefix}{tag}/member_{member}", value, step)

    try:
        yield log
    finally:
        for writer in writers:
            writer.close()


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a question that the training loop asks between updates."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
