"""From a dataset to a fitted model: split, specify, train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from dynlearn.compute import pick_device
from dynlearn.config import TrainConfig
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.store import EpisodeStore
from dynlearn.data.transitions import EpisodeSplit, Transitions, cut_transitions, split_episodes
from dynlearn.errors import CorruptData, InvalidInput, NumericalFailure, describe_fault
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.reward import (
    LearnedReward,
    judged_transitions,
    reward_config,
    reward_spec,
)
from dynlearn.models.spec import ModelSpec
from dynlearn.objectives import make_objective
from dynlearn.spaces import ActionSpace, ObservationSpace
from dynlearn.training.member_group import GroupFactory, MemberGroup
from dynlearn.training.trainer import Trainer, TrainingProgress


@dataclass(frozen=True)
class TrainedModel:
    """A finished training run.

    Attributes:
        model: the members to predict with, each at its best weights.
        history: NLL and RMSE of training and validation at every validation.
        updates: gradient updates made.
        reward: what was learned of the reward, where that was asked for.
    """

    model: DynamicsModel
    history: list[dict[str, float]]
    updates: int
    reward: LearnedReward | None = None


def model_spec(
    config: TrainConfig, observation_space: ObservationSpace, action_space: ActionSpace
) -> ModelSpec:
    """Return the spec of the model that a configuration asks for.

    Raises:
        InvalidInput: it names columns that are not there.
    """
    every = tuple(range(observation_space.observation.size))
    objective = make_objective(config)
    try:
        return ModelSpec(
            observation_space=observation_space,
            action_space=action_space,
            observation_columns=config.observation_columns or every,
            target_columns=config.target_columns or every,
            absolute_columns=config.absolute_columns,
            members=config.members,
            hidden=config.hidden,
            activation=config.activation,
            separate_networks=config.separate_networks,
            head=objective.head(config.covariance),
            prior_components=objective.components,
        )
    except ValidationError as error:
        raise InvalidInput(
            f"expected a model that can be built, got {describe_fault(error, 'model')}"
        ) from error


def fit(
    config: TrainConfig,
    spec: ModelSpec,
    train: Transitions,
    validation: Transitions,
    checkpoint: Path | None = None,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    make_group: GroupFactory = MemberGroup,
) -> TrainedModel | None:
    """Fit a model to transitions that are already split; None where ``should_stop`` ended it.

    Arguments and errors are those of `Trainer`, `Trainer.run` and `Trainer.elites`.
    """
    model = DynamicsModel(spec).to(pick_device(config.device))
    trainer = Trainer(config, model, train, validation, make_group)
    if not trainer.run(checkpoint, on_progress, should_stop):
        return None
    elites = trainer.elites()
    kept = model if config.elites is None else model.subset(elites)
    return TrainedModel(kept.eval(), trainer.history, trainer.update)


def split_dataset(config: TrainConfig, store: EpisodeStore) -> EpisodeSplit:
    """Return which of the dataset's episodes this configuration trains, selects and tests on."""
    return split_episodes(
        store.header.episodes, config.validation_share, config.test_share, config.seed
    )


def train(
    config: TrainConfig,
    store: EpisodeStore,
    checkpoint: Path | None = None,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    make_group: GroupFactory = MemberGroup,
    on_reward_progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> TrainedModel | None:
    """Fit a model to a dataset; None where ``should_stop`` ended it.

    Args:
        config: what to fit, and how.
        store: the dataset; its test episodes are left alone.
        checkpoint: the file to go on from where there is one, and to save into.
        on_progress: called after every validation.
        should_stop: asked every second or two.
        make_group: gives the groups of members, such as ones that train elsewhere.
        on_reward_progress: called after every validation of the reward, which is fitted first.

    Raises:
        InvalidInput: the configuration does not suit the dataset.
        CorruptData: the dataset holds values that are not finite.
        NumericalFailure: training diverged.
    """
    header = store.header
    spec = model_spec(config, header.observation_space, header.action_space)
    if config.elites is not None and config.elites > config.members:
        raise InvalidInput(
            f"expected at most {config.members} elites, got {config.elites}; raise members"
        )
    split = split_dataset(config, store)
    tables = store.table(split.train), store.table(split.validation)
    reward = None
    if config.learn_reward:
        # First: it is the quicker, so that what is wrong with it is known early.
        beside = None if checkpoint is None else reward_checkpoint(checkpoint)
        reward = fit_reward(
            config, *tables, header.action_space, beside, on_reward_progress, should_stop
        )
        if reward is None:
            return None
    training, validation = (cut_transitions(table, header.action_space) for table in tables)
    trained = fit(
        config, spec, training, validation, checkpoint, on_progress, should_stop, make_group
    )
    return None if trained is None else replace(trained, reward=reward)


def fit_reward(
    config: TrainConfig,
    train: EpisodeTable,
    validation: EpisodeTable,
    action_space: ActionSpace,
    checkpoint: Path | None = None,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> LearnedReward | None:
    """Fit the reward beside the dynamics of a configuration; None where ``should_stop`` ended it.

    Raises:
        InvalidInput: the actions are not of the space.
        CorruptData: a value is not finite.
        NumericalFailure: training diverged.
    """
    config = reward_config(config)
    training, selection = (judged_transitions(each, action_space) for each in (train, validation))
    spec = reward_spec(config, training.observation.shape[1], action_space)
    try:
        fitted = fit(config, spec, training, selection, checkpoint, on_progress, should_stop)
    except (CorruptData, NumericalFailure) as error:
        raise type(error)(f"the reward: {error}") from error
    size = train.observations.shape[1]
    return None if fitted is None else LearnedReward(fitted.model, size)


def reward_checkpoint(checkpoint: Path) -> Path:
    """Return where the fit of the reward saves, beside that of the dynamics."""
    return checkpoint.with_stem(f"{checkpoint.stem}-reward")
