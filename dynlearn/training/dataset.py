"""From a dataset to a fitted model: split, specify, train."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from dynlearn.config import TrainConfig
from dynlearn.data.blocks import BlockStore
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.outliers import Outlier, describe_outliers, find_outliers
from dynlearn.data.store import EpisodeStore
from dynlearn.data.transitions import (
    EpisodeSplit,
    Transitions,
    cut_transitions,
    held_out,
    split_episodes,
)
from dynlearn.errors import InvalidInput
from dynlearn.training.extras import fit_reward, reward_samples
from dynlearn.training.fit import TrainedModel, dynamics_samples, fit_samples, model_spec
from dynlearn.training.hooks import Hooks
from dynlearn.training.ranges import with_ranges
from dynlearn.training.training_data import Samples, gather

_PIECE = 2**15
"""Steps that are read at a time."""

_log = logging.getLogger(__name__)


def split_dataset(config: TrainConfig, store: EpisodeStore) -> tuple[EpisodeStore, EpisodeSplit]:
    """Return the episodes, and which of them a configuration trains, selects and tests on.

    Where there are too few to be told apart, such as one long trajectory, it is blocks of them.

    Raises:
        InvalidInput: they are too few, and too short to be cut.
    """
    shares = config.validation_share, config.test_share
    if _are_too_few(store, *shares):
        blocks = BlockStore(store)
        store = store if _are_too_few(blocks, *shares) else blocks
    return store, split_episodes(store.header.episodes, *shares, config.seed)


def _are_too_few(store: EpisodeStore, validation_share: float, test_share: float) -> bool:
    episodes = store.header.episodes
    return sum(held_out(episodes, validation_share, test_share)) >= episodes


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
    store, split = split_dataset(config, store)
    if isinstance(store, BlockStore):
        _log.info("%s", store.describe())
    space = header.action_space
    outliers: list[Outlier] = []

    def moves() -> Iterator[Transitions]:
        for table in store.pieces(split.train, _PIECE):
            outliers.extend(find_outliers(table))
            yield cut_transitions(table, space)

    spec = with_ranges(spec, moves())
    for part in (split.validation, split.test):
        for table in store.pieces(part, _PIECE):
            outliers.extend(find_outliers(table))
    if outliers:
        _log.warning("%s", describe_outliers(outliers))

    def samples(cut: Callable[[EpisodeTable], Samples]) -> tuple[Samples, Samples]:
        training, validation = (
            gather(map(cut, store.pieces(part, _PIECE)), header.steps)
            for part in (split.train, split.validation)
        )
        return training, validation

    reward = None
    if config.learn_reward:
        # First: it is the quicker, so that what is wrong with it is known early.
        reward = fit_reward(
            config, *samples(lambda table: reward_samples(table, spec)), spec, hooks
        )
        if reward is None:
            return None
    trained = fit_samples(
        config,
        spec,
        *samples(lambda table: dynamics_samples(spec, cut_transitions(table, space))),
        hooks,
    )
    return None if trained is None else replace(trained, reward=reward)
