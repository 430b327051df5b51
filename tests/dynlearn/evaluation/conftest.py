"""Episodes that a model made up itself, so that it is the truth about them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dynlearn.data.episodes import Episode, EpisodeTable
from dynlearn.models.dynamics import DynamicsModel


@pytest.fixture(scope="session")
def sample_episodes() -> Callable[..., EpisodeTable]:
    """Return a maker of episodes sampled step by step from a model's own predictions."""

    def make(model: DynamicsModel, episodes: int, steps: int, seed: int = 0) -> EpisodeTable:
        rng = np.random.default_rng(seed)
        size = model.spec.observation_size
        states = [rng.normal(size=(episodes, size)).astype(np.float32)]
        actions = rng.uniform(-1, 1, (steps, episodes, model.spec.action_size)).astype(np.float32)
        targets = list(model.spec.target_columns)
        for step in range(steps):
            following = states[-1].copy()
            following[:, targets] = model.sample(states[-1], actions[step], seed=1000 + step)[0]
            states.append(following)
        observations = np.stack(states, 1)
        return EpisodeTable.of(
            [
                Episode(
                    index=index,
                    seed=index,
                    observations=observations[index],
                    actions=actions[:, index],
                    rewards=np.zeros(steps),
                    terminated=np.zeros(steps, dtype=bool),
                    truncated=np.zeros(steps, dtype=bool),
                )
                for index in range(episodes)
            ]
        )

    return make


@pytest.fixture(scope="session")
def calm_model(make_model: Callable[..., DynamicsModel]) -> Callable[..., DynamicsModel]:
    """Return a maker of models whose rollouts stay near zero: values, not differences."""

    def make(**options: object) -> DynamicsModel:
        columns = {"target_columns": (0, 1, 2), "absolute_columns": (0, 1, 2), **options}
        model = make_model(**columns)
        with torch.no_grad():
            model.regressor.target_scaler.std.fill_(0.5)
        return model

    return make
