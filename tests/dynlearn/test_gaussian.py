import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from dynlearn.gaussian import DiagonalGaussian, Prediction

scales = st.floats(-8, 8).map(lambda exponent: 10.0**exponent)


def _random_prediction(members: int = 3, rows: int = 4, size: int = 2) -> Prediction:
    generator = torch.Generator().manual_seed(members)
    shape = (members, rows, size)
    means = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Prediction(means, torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1)


def test_log_prob_of_the_standard_normal_at_its_mean() -> None:
    gaussian = DiagonalGaussian(torch.zeros(2), torch.ones(2))
    torch.testing.assert_close(gaussian.log_prob(torch.zeros(2)), torch.tensor(-1.8378771))


@given(mean=st.floats(-10, 10), std=scales, z=st.floats(-30, 30))
def test_log_prob_per_dimension_is_scipys(mean: float, std: float, z: float) -> None:
    means, stds = np.array([mean * std, 1.0]), np.array([std, 2.0])
    value = means + z * stds
    gaussian = DiagonalGaussian(torch.from_numpy(means), torch.from_numpy(stds**2))
    found = gaussian.log_prob_per_dimension(torch.from_numpy(value))
    expected = stats.norm.logpdf(value, means, stds)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)
    joint = gaussian.log_prob(torch.from_numpy(value))
    np.testing.assert_allclose(joint.numpy(), expected.sum(), rtol=1e-9, atol=1e-9)


def test_sample_scales_the_noise_by_the_standard_deviation() -> None:
    gaussian = DiagonalGaussian(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0]))
    assert gaussian.sample(torch.tensor([1.0, -1.0])).tolist() == [3.0, -1.0]


def test_moments_of_a_mixture_of_two() -> None:
    prediction = Prediction(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[[1.0]], [[3.0]]]))
    assert prediction.mean.tolist() == [[1.0]]
    assert prediction.aleatoric.tolist() == [[[2.0]]]
    assert prediction.epistemic.tolist() == [[[1.0]]]
    assert prediction.covariance.tolist() == [[[3.0]]]
    assert prediction.variance.tolist() == [[3.0]]
    torch.testing.assert_close(prediction.std, torch.tensor([[3.0**0.5]]))


def test_covariance_is_that_of_samples_from_the_mixture() -> None:
    prediction = _random_prediction(members=4, rows=1, size=3)
    rng = np.random.default_rng(0)
    member = rng.integers(4, size=400_000)
    means = prediction.member_means[member, 0].numpy()
    stds = prediction.member_variances[member, 0].sqrt().numpy()
    samples = means + stds * rng.standard_normal(means.shape)
    np.testing.assert_allclose(prediction.mean[0], samples.mean(0), atol=0.01)
    np.testing.assert_allclose(prediction.covariance[0], np.cov(samples.T), atol=0.02)
    # The disagreement of the members correlates the dimensions, so the test sees the off-diagonal.
    assert prediction.covariance[0].fill_diagonal_(0).abs().max() > 0.1


@given(members=st.integers(1, 6), scale=scales)
def test_the_split_is_exact_and_each_part_is_a_covariance(members: int, scale: float) -> None:
    base = _random_prediction(members)
    prediction = Prediction(base.member_means * scale, base.member_variances * scale**2)
    total = prediction.aleatoric + prediction.epistemic
    torch.testing.assert_close(prediction.covariance, total, rtol=0, atol=0)
    diagonal = torch.diagonal(prediction.covariance, dim1=1, dim2=2)
    torch.testing.assert_close(prediction.variance, diagonal)
    for part in (prediction.aleatoric, prediction.epistemic):
        assert torch.linalg.eigvalsh(part).min() >= -1e-12 * scale**2
    for row in range(4):
        means = prediction.member_means[:, row].numpy()
        expected = np.cov(means.T, bias=True) if members > 1 else np.zeros((2, 2))
        np.testing.assert_allclose(
            prediction.epistemic[row], expected, rtol=1e-9, atol=1e-12 * scale**2
        )


def test_disagreement_alone_makes_covariance() -> None:
    """mbrl-lib's expectation averages log-variances and drops what the members disagree on."""
    means = torch.tensor([[[1.0, 1.0]], [[-1.0, -1.0]]])
    prediction = Prediction(means, torch.full_like(means, 1e-8))
    torch.testing.assert_close(prediction.covariance[0], torch.ones(2, 2))


@pytest.mark.parametrize("distance", [0.0, 3.0, 1e4])
def test_log_prob_of_a_mixture_holds_far_in_the_tail(distance: float) -> None:
    prediction = _random_prediction()
    value = torch.full((4, 2), distance, dtype=torch.float64)
    members = [
        stats.norm.logpdf(value, mean, variance**0.5).sum(-1)
        for mean, variance in zip(
            prediction.member_means.numpy(), prediction.member_variances.numpy(), strict=True
        )
    ]
    expected = logsumexp(members, axis=0) - np.log(3)
    np.testing.assert_allclose(prediction.log_prob(value), expected)
