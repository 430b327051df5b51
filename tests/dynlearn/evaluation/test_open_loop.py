from collections.abc import Callable

import numpy as np
import pytest

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.transitions import Windows, cut_windows
from dynlearn.evaluation.open_loop import OpenLoop, open_loop
from dynlearn.models.dynamics import DynamicsModel

MakeModel = Callable[..., DynamicsModel]
SampleEpisodes = Callable[..., EpisodeTable]


def test_errors_of_two_windows() -> None:
    real = np.array([[[1.0, 5.0], [2.0, 5.0]], [[3.0, 5.0], [4.0, 5.0]]])
    mean = real + np.array([[[1.0, 9.0], [2.0, 9.0]], [[-1.0, 9.0], [0.0, 9.0]]])
    rollouts = OpenLoop(np.zeros((2, 2)), real, mean, mean, mean)
    assert rollouts.rmse((0,)) == pytest.approx((1.0, np.sqrt(2)))
    assert rollouts.rmse((0, 1)) == pytest.approx((np.sqrt(41), np.sqrt((4 + 81 + 81) / 4)))
    assert rollouts.rmse_of_no_change((0,)) == pytest.approx((np.sqrt(5), np.sqrt(10)))


def test_a_model_without_noise_is_followed_step_by_step(
    calm_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = calm_model(members=1, head="mean")
    model.regressor.network.residual_variance.fill_(1e-12)
    table = sample_episodes(calm_model(), 6, 9)
    windows = cut_windows(table, model.spec.action_space, 4, 1000, seed=0)
    found = open_loop(model, windows, seed=0)
    assert found.real.shape == found.mean.shape == found.low.shape == (36, 4, 3)
    squares = np.zeros((4, 3))
    for window in range(36):
        state = windows.start[window]
        for step in range(4):
            state = model.predict(state[None], windows.actions[window, step][None]).mean[0].numpy()
            np.testing.assert_allclose(found.mean[window, step], state, atol=1e-4)
            squares[step] += (state - windows.following[window, step]) ** 2
    np.testing.assert_allclose(found.rmse((0, 1, 2)), np.sqrt(squares.mean(1) / 36), rtol=1e-3)
    np.testing.assert_array_equal(found.real, windows.following)


def test_the_band_holds_nine_tenths_of_what_the_model_itself_makes_up(
    calm_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = calm_model(members=1)
    windows = cut_windows(sample_episodes(model, 300, 6), model.spec.action_space, 5, 600, seed=0)
    found = open_loop(model, windows, seed=0)
    inside = ((found.low <= found.real) & (found.real <= found.high)).mean((0, 2))
    np.testing.assert_allclose(inside, 0.9, atol=0.02)


def test_more_windows_than_one_chunk(calm_model: MakeModel) -> None:
    model = calm_model()
    rng = np.random.default_rng(0)
    start = rng.normal(size=(300, 3)).astype(np.float32)
    actions = rng.uniform(-1, 1, (300, 2, 2)).astype(np.float32)
    whole = open_loop(model, Windows(start, actions, np.zeros((300, 2, 3), np.float32)), seed=0)
    first = open_loop(
        model, Windows(start[:256], actions[:256], np.zeros((256, 2, 3), np.float32)), seed=0
    )
    assert whole.mean.shape == (300, 2, 3)
    np.testing.assert_allclose(whole.mean[:256], first.mean, atol=1e-6)
