"""A training run: fit on the training episodes, judge on the test episodes, publish."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dynlearn.config import TrainConfig
from dynlearn.data.store import EpisodeStore
from dynlearn.errors import DynlearnError, InvalidInput, NumericalFailure
from dynlearn.evaluation import Metrics
from dynlearn.registry import ModelVersion, Registry
from dynlearn.spaces import obstacle_to_planning
from dynlearn.storage.locks import LOCK_FILE, one_writer
from dynlearn.training.dataset import train
from dynlearn.training.extras import reward_checkpoint
from dynlearn.training.group import GroupFactory
from dynlearn.training.hooks import Hooks
from dynlearn.training.member_group import MemberGroup
from dynlearn.training.progress import Progress
from dynlearn_services.home import Home
from dynlearn_services.signals import stop_signals
from dynlearn_services.training.publication import NotEvaluated, publish
from dynlearn_services.training.remote_group import remote_groups
from dynlearn_services.training.tensorboard import tensorboard

_log = logging.getLogger(__name__)

_CHECKPOINT = "checkpoint.safetensors"


class TrainingStopped(DynlearnError):
    """The run was asked to end; its state is saved."""

    exit_code = 130


def run_training(
    config: TrainConfig, home: Home, hooks: Hooks | None = None
) -> tuple[ModelVersion, Metrics]:
    """Train, evaluate on the test episodes and publish a model version.

    SIGINT and SIGTERM save the run before it ends; SIGKILL loses what came after the last
    checkpoint. With ``resume`` it goes on to the very same weights.

    Args:
        config: what to fit to which dataset, and how.
        home: where the datasets, the runs and the models are.
        hooks: whom to tell, and what else can end the run; it saves into its own folder, and
            ``workers`` says where the members train.

    Returns:
        The version and its metrics on the test episodes (on the validation episodes where
        ``test_share`` is zero).

    Raises:
        InvalidInput: the configuration does not suit the dataset, there is an earlier run that was
            not asked to go on, or none that could.
        Busy: another process trains the same model.
        NotEvaluated: the version is published, but its evaluation failed.
        NumericalFailure: training diverged; what it has saved is put aside.
        TrainingStopped: a signal or a hook ended the run.
    """
    run = home.run(config.model)
    home.require_writable(run, home.models)
    with one_writer(run / LOCK_FILE, f"the run of model {config.model}"):
        return _run(config, home, run, hooks or Hooks())


def _run(config: TrainConfig, home: Home, run: Path, given: Hooks) -> tuple[ModelVersion, Metrics]:
    store = EpisodeStore.open(home.dataset(config.dataset))
    obstacle = obstacle_to_planning(store.header.action_space)
    if config.learn_reward and obstacle:
        _log.info("note: `dynlearn plan` will not act by this model: %s", obstacle)
    checkpoint = run / _CHECKPOINT
    _check_resumption(config, run)
    with (
        tensorboard(run) as log,
        stop_signals() as stop,
        _groups(config) as (local, make_group),
    ):

        def report(progress: Progress) -> None:
            log(progress)
            given.on_progress(progress)

        own = replace(
            given,
            checkpoint=checkpoint,
            on_progress=report,
            should_stop=lambda: stop.is_set() or given.should_stop(),
            make_group=make_group,
        )
        try:
            trained = train(local, store, own)
        except NumericalFailure as error:
            # To go on would end the same: the mend is another configuration or dataset.
            raise NumericalFailure(f"{error}; the run is put aside as {_put_aside(run)}") from error
    if trained is None:
        saved = _checkpoints(run)[0]
        raise TrainingStopped(
            f"stopped; go on with `dynlearn train --resume` and the same options ({saved})"
        )
    try:
        published = publish(config, Registry(home.models), store, trained)
    except NotEvaluated:
        _remove_checkpoints(run)
        raise
    _remove_checkpoints(run)
    return published


def _checkpoints(run: Path) -> list[Path]:
    """Return what there is of a run that was cut off."""
    checkpoint = run / _CHECKPOINT
    return [file for file in (checkpoint, reward_checkpoint(checkpoint)) if file.exists()]


def _remove_checkpoints(run: Path) -> None:
    for file in _checkpoints(run):
        file.unlink()


def _put_aside(run: Path) -> Path:
    """Move what a run has saved out of the way of the next, and return where to."""
    folders = (run / f"failed-{number}" for number in itertools.count(1))
    folder = next(folder for folder in folders if not folder.exists())
    folder.mkdir()
    for file in _checkpoints(run):
        file.rename(folder / file.name)
    return folder


@contextmanager
def _groups(config: TrainConfig) -> Iterator[tuple[TrainConfig, GroupFactory]]:
    """Give the configuration of this process's part, and what makes the groups of members."""
    if config.workers == 1:
        yield config, MemberGroup
        return
    with remote_groups(config) as make_group:
        # The workers have the devices; here the ensemble is only gathered.
        yield config.model_copy(update={"device": "cpu"}), make_group


def _check_resumption(config: TrainConfig, run: Path) -> None:
    cut_off = _checkpoints(run)
    if config.resume and not cut_off:
        raise InvalidInput(
            f"--resume: expected a run of model {config.model} that was cut off, got none in "
            f"{run}; start one without --resume"
        )
    if not config.resume and cut_off:
        raise InvalidInput(
            f"expected no run of model {config.model} that was cut off, got "
            f"{' and '.join(map(str, cut_off))}; go on with it by --resume, or delete it to start "
            "over"
        )
