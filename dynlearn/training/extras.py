"""How the reward is fitted beside the dynamics."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from dynlearn.config import TrainConfig
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.transitions import judged_transitions
from dynlearn.errors import CorruptData, NumericalFailure
from dynlearn.models.reward import LearnedReward, reward_spec
from dynlearn.models.spec import ModelSpec
from dynlearn.training.fit import fit_regressor
from dynlearn.training.hooks import Hooks
from dynlearn.training.member_group import MemberGroup
from dynlearn.training.progress import Progress
from dynlearn.training.training_data import Samples

# Of the transitions, with one and the same reward.
_SAME_SHARE = 0.98

logger = logging.getLogger(__name__)

# What a reward's fit has in common with that of the dynamics.
_SHARED = {
    "dataset",
    "model",
    "hidden",
    "activation",
    "initialization",
    "learning_rate",
    "schedule",
    "batch_size",
    "precision",
    "max_updates",
    "validate_every",
    "patience",
    "validation_share",
    "test_share",
    "checkpoint_every",
    "device",
    "seed",
}


def fit_reward(
    config: TrainConfig,
    training: Samples,
    validation: Samples,
    dynamics: ModelSpec,
    hooks: Hooks | None = None,
) -> LearnedReward | None:
    """Fit the reward beside the dynamics of a configuration; None where ``should_stop`` ended it.

    Args:
        config: of the dynamics.
        training: the `reward_samples` to learn from.
        validation: those to select on.
        dynamics: the spec of the dynamics.
        hooks: of the dynamics; the one member of the reward trains here, and saves into
            `reward_checkpoint`.

    Raises:
        CorruptData: a value is not finite.
        NumericalFailure: training diverged.
    """
    _tell_of_sameness(training)
    config = reward_config(config)
    spec = reward_spec(training.inputs.shape[1], config.hidden, config.activation)
    try:
        fitted = fit_regressor(config, spec, training, validation, _of_reward(hooks or Hooks()))
    except (CorruptData, NumericalFailure) as error:
        raise type(error)(f"the reward: {error}") from error
    if fitted is None:
        return None
    return LearnedReward(
        fitted.regressor, dynamics.observation_size, dynamics.action_size, dynamics.origin
    )


def _tell_of_sameness(samples: Samples) -> None:
    """Warn where nearly all rewards are one: what a planner would learn is to do anything."""
    rewards = samples.targets[:, 0]
    middle = len(rewards) // 2
    # One of the values, unlike a median of two.
    usual = np.partition(rewards, middle)[middle]
    share = float(np.mean(rewards == usual))
    if share > _SAME_SHARE:
        logger.warning(
            "the reward of %.4g%% of the transitions is %.4g: a planner finds little to choose by; "
            "collect episodes that reach others, or add a task with a reward that says how near "
            "the goal is",
            100 * share,
            usual,
        )


def reward_config(config: TrainConfig) -> TrainConfig:
    """Return how the reward beside a dynamics model is fitted: least squares, on all data."""
    return TrainConfig(
        **config.model_dump(include=_SHARED),
        objective="mse",
        members=1,
        bootstrap=False,
        select_by="rmse",
    )


def reward_checkpoint(checkpoint: Path) -> Path:
    """Return where the fit of the reward saves, beside that of the dynamics."""
    return checkpoint.with_stem(f"{checkpoint.stem}-reward")


def reward_samples(table: EpisodeTable, dynamics: ModelSpec) -> Samples:
    """Return what the reward beside dynamics of a spec is to be learned from.

    Raises:
        InvalidInput: the actions are not of the spec's space.
        CorruptData: a value is not finite.
    """
    judged = judged_transitions(table, dynamics.action_space, dynamics.origin)
    reward = judged.reward[:, None]
    return Samples(judged.inputs, reward, np.abs(reward).max(0, initial=0))


def _of_reward(hooks: Hooks) -> Hooks:
    def report(progress: Progress) -> None:
        hooks.on_progress(replace(progress, part="reward"))

    checkpoint = None if hooks.checkpoint is None else reward_checkpoint(hooks.checkpoint)
    return replace(hooks, checkpoint=checkpoint, on_progress=report, make_group=MemberGroup)
