"""Collected with Ray, fitted, and better than predicting no change."""

from pathlib import Path

import pytest

from dynlearn.config import CollectConfig, TrainConfig
from dynlearn_services.collection.run import collect
from dynlearn_services.home import Home
from dynlearn_services.training.run import run_training


@pytest.mark.usefixtures("ray_session")
def test_a_short_run_learns_the_slide(tmp_path: Path) -> None:
    home = Home(tmp_path)
    collect(CollectConfig(dataset="slide", episodes=3000, noise=0.5), home.dataset("slide"))
    config = TrainConfig(
        dataset="slide",
        model="slide",
        members=3,
        hidden=(64, 64),
        max_updates=4000,
        learning_rate=3e-3,
    )
    _, metrics = run_training(config, home)
    for column in metrics.columns:
        assert metrics.rmse_per_column[column] < 0.7 * metrics.rmse_of_no_change[column]
    assert metrics.rmse_per_column["object_position (m)"] < 0.05
    errors, still = metrics.open_loop_rmse, metrics.open_loop_rmse_of_no_change
    assert all(error < 0.5 * other for error, other in zip(errors, still, strict=True))
