from pathlib import Path

from dynlearn.config import TrainConfig
from dynlearn.training.extras import reward_checkpoint, reward_config


def test_its_fit_is_least_squares_whatever_the_dynamics_are_fitted_with() -> None:
    config = reward_config(
        TrainConfig(
            dataset="d", model="m", objective="trustable", covariance="full", hidden=(32, 32),
            max_updates=600, members=4, elites=2, workers=2,
        )
    )  # fmt: skip
    assert (config.objective.name, config.members, config.covariance) == ("mse", 1, "diagonal")
    assert (config.hidden, config.max_updates, config.seed) == ((32, 32), 600, 0)
    assert (config.elites, config.workers) == (None, 1)


def test_it_saves_beside_the_dynamics() -> None:
    assert reward_checkpoint(Path("runs/c.safetensors")) == Path("runs/c-reward.safetensors")
