"""The synthetic sets: oracle values, moments and scores against independent references."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import multivariate_normal, t

from benchmarks.data.processes import nn_constant, spiral
from benchmarks.data.synthetic import NAMES, Problem, load, score
from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.distributions.student_t import StudentT
from dynlearn.errors import NotFound


@pytest.mark.parametrize(
    ("name", "nll", "mse"),
    [
        ("sine", -3.186, 1e-4),
        ("trustable_sine", -3.186, 1e-4),
        ("trustable_sine_code", -0.884, 1e-2),
        ("detlefsen", 1.669, 3.09),
        ("trustable_detlefsen", 1.669, 3.09),
        ("trustable_detlefsen_code", 3.056, 44.3),
        ("nn_constant", -0.308, 6.500),
        ("spiral_k0", -1.309, 0.107),
        ("spiral_k2", -8.217, 0.107e-2),
        ("spiral_k5", -18.579, 0.107e-5),
    ],
)
def test_oracle_values(name: str, nll: float, mse: float) -> None:
    problem = load(name)
    whole = problem.process.draw(problem.grid, np.random.default_rng(0))
    assert whole.oracle_nll == pytest.approx(nll, abs=5e-4)
    assert whole.oracle_mse == pytest.approx(mse, rel=2e-3)


def test_the_zero_predictor_of_the_sine_scores_what_it_must() -> None:
    test = load("sine").test
    zero = DiagonalGaussian(torch.zeros(1000, 1), torch.ones(1000, 1))
    assert score(zero, test)["rmse"].item() == pytest.approx(0.2827, abs=1e-3)


def test_beta_nll_sine_has_the_same_inputs_and_noise_of_its_own() -> None:
    problem = load("sine")
    np.testing.assert_array_equal(problem.train.inputs, problem.test.inputs)
    assert problem.train.inputs[[0, -1], 0].tolist() == [0, 12]
    noise = [part.targets - part.mean for part in (problem.train, problem.test)]
    assert np.corrcoef(noise[0][:, 0], noise[1][:, 0])[0, 1] == pytest.approx(0, abs=0.1)
    assert np.std(noise) == pytest.approx(0.01, rel=0.05)


def sizes(problem: Problem) -> tuple[int, ...]:
    return tuple(map(len, (problem.train, problem.test, *problem.tuning())))


def test_sizes_of_the_parts() -> None:
    assert sizes(load("detlefsen")) == (1000, 1000, 700, 300)
    assert sizes(load("nn_constant")) == (1400, 600, 980, 420)
    assert sizes(load("spiral_k5")) == (3500, 1500, 2450, 1050)


def test_trustable_parts_are_disjoint_and_whole() -> None:
    problem = load("nn_constant")
    inputs = np.concatenate([problem.train.inputs, problem.test.inputs])[:, 0]
    np.testing.assert_array_equal(np.sort(inputs), problem.grid)
    tuning, validation = problem.tuning()
    again = np.concatenate([tuning.targets, validation.targets])
    assert sorted(again.tolist()) == sorted(problem.train.targets.tolist())


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_noise_and_nothing_else(name: str) -> None:
    first, same, other = load(name, 3), load(name, 3), load(name, 4)
    np.testing.assert_array_equal(first.train.targets, same.train.targets)
    assert not np.array_equal(first.train.targets, other.train.targets)
    if name != "detlefsen":
        np.testing.assert_array_equal(first.test.inputs, other.test.inputs)


def test_nn_constant_steps() -> None:
    at = np.array([-1.0, -0.76, -0.75, -0.1, 0.0, 0.9, 1.0])
    samples = nn_constant().draw(at, np.random.default_rng(0))
    assert samples.mean[:, 0].tolist() == [-3, -3, -2.25, -0.75, 0, 2.25, 2.25]
    np.testing.assert_allclose(
        np.sqrt(samples.covariance[:, 0, 0]), [0.01, 0.01, 0.02, 5, 0.01, 5, 5]
    )


def test_the_spiral_covariance_turns_with_the_spiral() -> None:
    covariance = spiral(2).truth(np.array([0.0, np.pi / 2, 10.0])).covariance.numpy()
    tilted = {0: [0.5, 0, np.sqrt(0.75)], 1: [0, 0.5, np.sqrt(0.75)]}
    for row, axis in tilted.items():
        np.testing.assert_allclose(covariance[row] @ axis, np.multiply(1e-3, axis), atol=1e-17)
    np.testing.assert_allclose(covariance[1] @ [-1, 0, 0], [-2e-3, 0, 0], atol=1e-17)
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance[0]), [1e-6, 1e-3, 2e-3])
    np.testing.assert_allclose(np.linalg.eigvalsh(covariance[2]), [1e-3, 1e-3, 2e-3])


def test_targets_have_the_moments_that_they_claim() -> None:
    samples = spiral(0).draw(np.full(200_000, 1.3), np.random.default_rng(0))
    np.testing.assert_allclose(samples.targets.mean(0), samples.mean[0], atol=5e-3)
    np.testing.assert_allclose(np.cov(samples.targets.T), samples.covariance[0], atol=2e-3)


def test_score_against_scipy() -> None:
    test = load("spiral_k0").test
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(1500, 3, 3, generator=generator).tril()
    factor.diagonal(dim1=1, dim2=2).abs_().add_(0.1)
    mean = torch.randn(1500, 3, generator=generator)
    scores = score(FullGaussian(mean, factor), test)
    means, covariances = mean.double().numpy(), (factor.double() @ factor.double().mT).numpy()
    nll, kl, w2 = np.zeros(1500), np.zeros(1500), np.zeros(1500)
    for i in range(1500):
        nll[i] = -multivariate_normal.logpdf(test.targets[i], means[i], covariances[i])
        inverse, difference = np.linalg.inv(covariances[i]), means[i] - test.mean[i]
        ratio = inverse @ test.covariance[i]
        kl[i] = np.trace(ratio) - 3 - np.linalg.slogdet(ratio)[1]
        kl[i] = 0.5 * (kl[i] + difference @ inverse @ difference)
        root = sqrtm(test.covariance[i])
        cross = np.real(np.trace(sqrtm(root @ covariances[i] @ root)))
        w2[i] = np.trace(covariances[i]) + np.trace(test.covariance[i]) - 2 * cross
    error = means - test.mean
    expected = {
        "nll": nll.mean(),
        "rmse": np.sqrt(np.mean((means - test.targets) ** 2)),
        "rmse_to_mean": np.sqrt(np.mean(error**2)),
        "kl": kl.mean(),
        "w2": np.mean(w2 + (error**2).sum(1)),
        "w2_covariance": w2.mean(),
        "w2_normalised": np.mean(1 - np.exp(-np.sqrt(w2) / 0.17)),
    }
    assert {key: value.item() for key, value in scores.items()} == pytest.approx(expected, 1e-6)


def test_the_truth_scores_the_oracle() -> None:
    test = load("spiral_k5").test
    scores = score(test.truth, test)
    assert scores["nll"].item() == pytest.approx(test.oracle_nll, abs=0.15)
    assert scores["kl"].item() == pytest.approx(0, abs=1e-9)
    assert scores["w2"].item() == pytest.approx(0, abs=1e-18)


def test_a_student_t_is_judged_by_its_own_likelihood() -> None:
    test = load("nn_constant").test
    ones = torch.ones(600, 1)
    scores = score(StudentT(0 * ones, 3 * ones, 2 * ones), test)
    expected = -t.logpdf(test.targets, df=6, loc=0, scale=np.sqrt(2 / 3)).mean()
    assert scores["nll"].item() == pytest.approx(expected)
    std = np.sqrt(test.covariance[:, 0, 0])
    assert scores["w2_covariance"].item() == pytest.approx(np.mean((1 - std) ** 2))


def test_a_diverged_member_leaves_the_others_alone() -> None:
    test = load("sine").test
    truth = test.truth
    factor = truth.scale_tril.expand(2, -1, -1, -1).clone()
    factor[1, 7] = float("nan")
    scores = score(FullGaussian(truth.mean.expand(2, -1, -1), factor), test)
    for key in ("nll", "kl", "w2", "w2_covariance", "w2_normalised"):
        assert scores[key].shape == (2,)
        assert scores[key].isfinite().tolist() == [True, False]


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(NotFound, match="did you mean nn_constant"):
        load("nnconstant")
