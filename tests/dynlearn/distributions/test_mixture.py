import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.distributions.mixture import Prediction
from dynlearn.distributions.student_t import StudentT

scales = st.floats(-8, 8).map(lambda exponent: 10.0**exponent)
KINDS = ["diagonal", "full", "student_t"]


def _prediction(kind: str, members: int = 3, rows: int = 4, size: int = 2) -> Prediction:
    generator = torch.Generator().manual_seed(members)
    shape = (members, rows, size)
    means = torch.randn(shape, generator=generator, dtype=torch.float64)
    positive = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
    if kind == "diagonal":
        return Prediction(DiagonalGaussian(means, positive))
    if kind == "student_t":
        return Prediction(StudentT(means, positive + 2, positive))
    below = torch.randn((*shape, size), generator=generator, dtype=torch.float64).tril(-1)
    return Prediction(FullGaussian(means, below + torch.diag_embed(positive)))


def test_moments_of_a_mixture_of_two() -> None:
    means, variances = torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([[[1.0]], [[3.0]]])
    prediction = Prediction(DiagonalGaussian(means, variances))
    assert prediction.mean.tolist() == [[1.0]]
    assert prediction.aleatoric.tolist() == [[[2.0]]]
    assert prediction.epistemic.tolist() == [[[1.0]]]
    assert prediction.covariance.tolist() == [[[3.0]]]
    assert prediction.variance.tolist() == [[3.0]]
    torch.testing.assert_close(prediction.std, torch.tensor([[3.0**0.5]]))


def test_moments_of_a_mixture_of_two_with_full_covariance() -> None:
    """Covariances ((4, 2), (2, 2)) and the identity around (0, 0) and (2, 4)."""
    factors = torch.tensor([[[2.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]])
    means = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    prediction = Prediction(FullGaussian(means[:, None], factors[:, None]))
    assert prediction.mean.tolist() == [[1.0, 2.0]]
    assert prediction.member_variances.tolist() == [[[4.0, 2.0]], [[1.0, 1.0]]]
    assert prediction.aleatoric.tolist() == [[[2.5, 1.0], [1.0, 1.5]]]
    assert prediction.epistemic.tolist() == [[[1.0, 2.0], [2.0, 4.0]]]
    assert prediction.covariance.tolist() == [[[3.5, 3.0], [3.0, 5.5]]]
    assert prediction.variance.tolist() == [[3.5, 5.5]]


def _draws(prediction: Prediction, count: int) -> NDArray[np.float64]:
    """Draw from the first row's mixture, by NumPy from the members' definitions."""
    rng = np.random.default_rng(0)
    members = prediction.members[:, 0]
    parts = []
    for index in range(len(members.mean)):
        member = members[index]
        # As many of each member: no noise of the choice itself.
        normal = rng.standard_normal((count // len(members.mean), len(member.mean)))
        if isinstance(member, FullGaussian):
            spread = normal @ member.scale_tril.numpy().T
        elif isinstance(member, StudentT):
            precision = rng.gamma(member.concentration, 1 / member.rate.numpy(), normal.shape)
            spread = normal / np.sqrt(precision)
        else:
            spread = normal * np.sqrt(member.variance.numpy())
        parts.append(member.mean.numpy() + spread)
    return np.concatenate(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_covariance_is_that_of_samples_from_the_mixture(kind: str) -> None:
    prediction = _prediction(kind, members=4, rows=1, size=3)
    samples = _draws(prediction, 400_000)
    np.testing.assert_allclose(prediction.mean[0], samples.mean(0), atol=0.01)
    np.testing.assert_allclose(prediction.covariance[0], np.cov(samples.T), atol=0.025)
    # Correlated dimensions, so that the test sees the off-diagonal.
    assert prediction.covariance[0].fill_diagonal_(0).abs().max() > 0.1
    if kind == "full":
        assert prediction.aleatoric[0].fill_diagonal_(0).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@given(members=st.integers(1, 6), scale=scales)
def test_the_split_is_exact_and_each_part_is_a_covariance(
    kind: str, members: int, scale: float
) -> None:
    base = _prediction(kind, members)
    factor = torch.full((2,), scale, dtype=torch.float64)
    prediction = Prediction(base.members.affine(factor, torch.zeros_like(factor)))
    total = prediction.aleatoric + prediction.epistemic
    torch.testing.assert_close(prediction.covariance, total, rtol=0, atol=0)
    diagonal = torch.diagonal(prediction.covariance, dim1=1, dim2=2)
    torch.testing.assert_close(prediction.variance, diagonal, rtol=1e-12, atol=0)
    own = prediction.members.covariance.mean(0)
    torch.testing.assert_close(prediction.aleatoric, own, rtol=1e-12, atol=1e-15 * scale**2)
    for part in (prediction.aleatoric, prediction.epistemic):
        assert torch.linalg.eigvalsh(part).min() >= -1e-12 * scale**2
        assert torch.equal(part, part.mT)
    for row in range(4):
        means = prediction.member_means[:, row].numpy()
        expected = np.cov(means.T, bias=True) if members > 1 else np.zeros((2, 2))
        np.testing.assert_allclose(
            prediction.epistemic[row], expected, rtol=1e-9, atol=1e-12 * scale**2
        )


def test_disagreement_alone_makes_covariance() -> None:
    """mbrl-lib's expectation averages log-variances and drops what the members disagree on."""
    means = torch.tensor([[[1.0, 1.0]], [[-1.0, -1.0]]])
    prediction = Prediction(DiagonalGaussian(means, torch.full_like(means, 1e-8)))
    torch.testing.assert_close(prediction.covariance[0], torch.ones(2, 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", [0.0, 3.0, 1e4])
def test_log_prob_of_a_mixture_holds_far_in_the_tail(kind: str, distance: float) -> None:
    prediction = _prediction(kind)
    value = torch.full((4, 2), distance, dtype=torch.float64)
    logs = np.empty((3, 4))
    for member in range(3):
        for row in range(4):
            one = prediction.members[member, row]
            if isinstance(one, StudentT):
                scale = (one.rate / one.concentration).sqrt()
                scipys = stats.t(2 * one.concentration.numpy(), one.mean.numpy(), scale.numpy())
                logs[member, row] = scipys.logpdf(value[row]).sum()
            else:
                scipys = stats.multivariate_normal(one.mean.numpy(), one.covariance.numpy())
                logs[member, row] = scipys.logpdf(value[row])
    expected = logsumexp(logs, axis=0) - np.log(3)
    np.testing.assert_allclose(prediction.log_prob(value), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_factor_is_that_of_the_covariance_and_always_there(kind: str) -> None:
    prediction = _prediction(kind)
    factor = prediction.scale_tril
    expected = torch.linalg.cholesky(prediction.covariance)
    torch.testing.assert_close(factor, expected)
    rows = torch.arange(4)
    torch.testing.assert_close(prediction._factor_of_factors(rows), expected)


@pytest.mark.parametrize("apart", [1e6, 1e20])
def test_members_far_apart_have_a_factor_though_the_covariance_has_none(apart: float) -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 2, 4, generator=generator)
    means[:, 1] *= apart
    prediction = Prediction(DiagonalGaussian(means, torch.full((3, 2, 4), 0.1)))
    with pytest.raises(RuntimeError, match="cholesky"):
        torch.linalg.cholesky(prediction.covariance.double())
    factor = prediction.scale_tril
    assert factor.isfinite().all()
    deviations = (means - means.mean(0))[:, 1].double()
    exact = deviations.mT @ deviations / 3 + 0.1 * torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(factor[1] @ factor[1].mT, exact, rtol=1e-6, atol=apart**2 * 1e-6)
    assert (factor.diagonal(dim1=-2, dim2=-1) >= 0).all()
