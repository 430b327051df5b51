"""From a dataset to a fitted model: split, specify, train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dynlearn.config import TrainConfig
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.store import EpisodeStore
from dynlearn.data.transitions import EpisodeSplit, cut_transitions, split_episodes
from dynlearn.errors import InvalidInput
from dynlearn.training.extras import fit_reward, reward_samples
from dynlearn.training.fit import TrainedModel, dynamics_samples, fit_samples, model_spec
from dynlearn.training.hooks import Hooks
from dynlearn.training.ranges import with_ranges
from dynlearn.training.training_data import Samples, gather

_PIECE = 2**15
"""Steps that are read at a time."""


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
    space = header.action_space
    moves = (cut_transitions(table, space) for table in store.pieces(split.train, _PIECE))
    spec = with_ranges(spec, moves)

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
