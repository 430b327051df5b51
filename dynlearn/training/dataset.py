"""From a dataset to a fitted model: split, specify, train."""

from __future__ import annotations

from dataclasses import replace

from dynlearn.config import TrainConfig
from dynlearn.data.store import EpisodeStore
from dynlearn.data.transitions import EpisodeSplit, cut_transitions, split_episodes
from dynlearn.errors import InvalidInput
from dynlearn.training.extras import fit_reward
from dynlearn.training.fit import TrainedModel, fit, model_spec
from dynlearn.training.hooks import Hooks
from dynlearn.training.ranges import with_ranges


def split_dataset(config: TrainConfig, store: EpisodeStore) -> EpisodeSplit:
    """Return which of the dataset's episodes this configuration trains, selects and tests on."""
    return split_episodes(
        store.header.episodes, config.validation_share, config.test_share, config.seed
    )


def train(
    config: TrainConfig, store: EpisodeStore, hooks: Hooks | None = None
) -> TrainedModel | None:
    """Fit a model to a dataset; None where ``should_stop`` ended it.

    Args:
        config: what to fit, and how.
        store: the dataset; its test episodes are left alone.
        hooks: of the fits: the reward's, where it is learned, and then the dynamics'.

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
    training, validation = (cut_transitions(table, header.action_space) for table in tables)
    spec = with_ranges(spec, training)
    reward = None
    if config.learn_reward:
        # First: it is the quicker, so that what is wrong with it is known early.
        reward = fit_reward(config, *tables, spec, hooks)
        if reward is None:
            return None
    trained = fit(config, spec, training, validation, hooks)
    return None if trained is None else replace(trained, reward=reward)
