"""The figures: what they compute, and that each is drawn without a warning."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks import fits
from benchmarks.data.synthetic import load
from dynlearn.distributions.gaussian import FullGaussian

NAN = np.nan


def check_picture(path: Path) -> None:
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 200
    assert pixels[:, :, :3].std() > 0.02


def test_sampling_probabilities() -> None:
    variance = np.array([[1.0, 4.0], [1e-30, 1.0]])
    np.testing.assert_allclose(
        fits.sampling_probabilities(variance), [[0.8, 0.2], [1, 1e-30]], rtol=1e-12
    )
    np.testing.assert_allclose(fits.sampling_probabilities(variance, 0.5)[0], [2 / 3, 1 / 3])
    np.testing.assert_allclose(fits.sampling_probabilities(variance, 1.0), 0.5)


def test_a_diverged_seed_counts_as_the_worst() -> None:
    values = np.arange(1.0, 11.0)[:, None].repeat(3, axis=1)
    values[:1, 1] = NAN
    values[:6, 2] = NAN
    low, median, high = fits.seed_band(values)
    assert low.tolist() == [2, 3, 8]
    assert median.tolist() == [5.5, 6.5, np.inf]
    assert high.tolist() == [9, 10, np.inf]


@pytest.mark.parametrize("name", ["nn_constant", "spiral_k0"])
def test_draw_fits(name: str, tmp_path: Path) -> None:
    problem = load(name)
    truth = problem.process.truth(problem.grid)
    diverged = FullGaussian(truth.mean * NAN, truth.scale_tril * NAN)
    names = ("t", "x", "y", "z") if name == "spiral_k0" else ("x", "y")
    shown = {"truth": truth, "diverged": diverged}
    fits.draw_fits(tmp_path / "fits.png", problem.grid, shown, problem.train, truth, names)
    check_picture(tmp_path / "fits.png")


@pytest.mark.parametrize("is_log", [(False, False), (True, True)])
def test_draw_curves(is_log: tuple[bool, bool], tmp_path: Path) -> None:
    x = np.arange(1.0, 51.0)
    curves = {f"β = {beta}": np.exp(-x * beta / 50) * np.ones((4, 1)) for beta in (0.0, 0.5, 1.0)}
    curves["β = 0.5"][1:, 20:] = NAN
    curves["never finite"] = np.full((4, 50), NAN)
    references: dict[str, float | np.ndarray] = {"oracle": 0.01, "truth": 1 / x}
    path = tmp_path / "curves.png"
    fits.draw_curves(path, x, curves, "updates", "RMSE", references, is_log, (1e-3, 2.0))
    check_picture(path)


def test_draw_curves_of_nothing_finite(tmp_path: Path) -> None:
    curves = {"nll": np.full((2, 3), NAN)}
    fits.draw_curves(tmp_path / "curves.png", np.arange(3.0), curves, "updates", "NLL (nats)")
    check_picture(tmp_path / "curves.png")


def test_draw_residuals(tmp_path: Path) -> None:
    residuals = np.random.default_rng(0).normal(size=(500, 2))
    shown = {"NLL": residuals, "MSE": 10 * residuals, "exact": 0 * residuals}
    fits.draw_residuals(tmp_path / "some.png", shown, "m")
    check_picture(tmp_path / "some.png")
    residuals[3] = NAN
    fits.draw_residuals(tmp_path / "diverged.png", {"β = 0.5": residuals}, "m")
    check_picture(tmp_path / "diverged.png")


def test_draw_sampling(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    inputs, updates = generator.uniform(size=60), np.linspace(0, 1e6, 20)
    variance = generator.exponential(size=(20, 60)) ** 12
    shown = {f"β = {b}": fits.sampling_probabilities(variance, b) for b in (0.0, 1.0)}
    fits.draw_sampling(tmp_path / "map.png", inputs, updates, shown)
    check_picture(tmp_path / "map.png")
    moments = shown["β = 0.0"][[0, 10, 19]]
    path = tmp_path / "histograms.png"
    fits.draw_sampling_histograms(path, updates[[0, 10, 19]], moments, moments[0])
    check_picture(path)
