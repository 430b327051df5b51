from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import sqrtm
from torch import Tensor

from dynlearn.distributions.gaussian import (
    DiagonalGaussian,
    FullGaussian,
    Gaussian,
    concatenate,
    kl_divergence,
    wasserstein,
)

SIZES = [1, 2, 5, 25]
CONDITIONS = [1.0, 1e4, 1e8]

Divergence = Callable[[Gaussian, Gaussian], Tensor]

scales = st.floats(-8, 8).map(lambda exponent: 10.0**exponent)


def _basis(size: int, seed: int) -> NDArray[np.float64]:
    draws = np.random.default_rng(seed).normal(size=(size, size))
    return np.linalg.qr(draws)[0]


def _spectrum(size: int, condition: float, seed: int) -> NDArray[np.float64]:
    """Eigenvalues from 1 down to 1 / condition, in any order."""
    exponents = np.linspace(0, 1, size) if size > 1 else np.zeros(1)
    return np.random.default_rng(seed).permutation(condition**-exponents)


def _full(
    mean: NDArray[np.float64], basis: NDArray[np.float64], eigenvalues: NDArray[np.float64]
) -> FullGaussian:
    """A Gaussian whose covariance has the given eigenvectors and eigenvalues."""
    # By QR of a root, whose condition number is the square root of the covariance's.
    lower = np.linalg.qr((basis * np.sqrt(eigenvalues)).T)[1].T
    lower = lower * np.sign(np.diag(lower))
    return FullGaussian(torch.from_numpy(mean), torch.from_numpy(lower))


def _random_full(size: int, condition: float, seed: int) -> FullGaussian:
    mean = np.random.default_rng(seed + 1).normal(size=size)
    return _full(mean, _basis(size, seed + 2), _spectrum(size, condition, seed + 3))


def _torch(gaussian: Gaussian) -> torch.distributions.MultivariateNormal:
    if isinstance(gaussian, FullGaussian):
        return torch.distributions.MultivariateNormal(gaussian.mean, scale_tril=gaussian.scale_tril)
    return torch.distributions.MultivariateNormal(gaussian.mean, gaussian.covariance)


# Density, entropy, sampling


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


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_full_log_prob_and_entropy_are_scipys_and_torchs(size: int, condition: float) -> None:
    gaussian = _random_full(size, condition, seed=size)
    noise = 3 * torch.randn(6, size, generator=torch.Generator().manual_seed(0)).double()
    value = gaussian.mean + noise @ gaussian.scale_tril.mT
    scipys = stats.multivariate_normal(gaussian.mean.numpy(), gaussian.covariance.numpy())
    found = gaussian.log_prob(value)
    # Scipy works on the covariance, with its condition number; torch on the factor.
    np.testing.assert_allclose(found, np.atleast_1d(scipys.logpdf(value)), rtol=1e-6)
    torch.testing.assert_close(found, _torch(gaussian).log_prob(value), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gaussian.entropy(), scipys.entropy(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(gaussian.whiten(value), noise, rtol=1e-6, atol=1e-6)


def test_diagonal_entropy_is_scipys() -> None:
    variance = torch.tensor([1e-8, 1.0, 100.0], dtype=torch.float64)
    gaussian = DiagonalGaussian(torch.zeros(3), variance)
    expected = stats.norm.entropy(scale=[1e-4, 1, 10]).sum()
    assert float(gaussian.entropy()) == pytest.approx(expected, rel=1e-12)


def test_sample_scales_the_noise_by_the_standard_deviation() -> None:
    gaussian = DiagonalGaussian(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0]))
    assert gaussian.sample(torch.tensor([1.0, -1.0])).tolist() == [3.0, -1.0]


def test_a_full_sample_by_hand() -> None:
    gaussian = FullGaussian(torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 0.0], [1.0, 3.0]]))
    assert gaussian.sample(torch.tensor([1.0, -1.0])).tolist() == [3.0, 0.0]
    assert gaussian.covariance.tolist() == [[4.0, 2.0], [2.0, 10.0]]
    assert gaussian.variance.tolist() == [4.0, 10.0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_samples_of_unit_noise_have_the_covariance(size: int, condition: float) -> None:
    """Of white noise W with WᵀW = 1 the samples' second moment is the covariance, exactly."""
    gaussian = _random_full(size, condition, seed=size)
    samples = gaussian.sample(torch.from_numpy(_basis(size, 9))) - gaussian.mean
    torch.testing.assert_close(samples.mT @ samples, gaussian.covariance, rtol=0, atol=1e-14)
    torch.testing.assert_close(gaussian.std, gaussian.covariance.diagonal().sqrt())


def test_noise_widens_the_variances() -> None:
    noise = torch.tensor([3.0, 4.0])
    diagonal = DiagonalGaussian(torch.zeros(2), torch.tensor([4.0, 9.0])).widen(noise)
    assert diagonal.variance.tolist() == [13, 25]
    factor = torch.tensor([[4.0, 0.0], [1.0, 3.0]])
    full = FullGaussian(torch.zeros(2), factor).widen(noise)
    assert full.scale_tril.tolist() == [[5, 0], [1, 5]]
    assert full.variance.tolist() == [16 + 9, 10 + 16]
    assert factor.tolist() == [[4, 0], [1, 3]]


# Divergences


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_kl_is_torchs_and_the_textbooks(size: int, condition: float) -> None:
    p, q = (_random_full(size, condition, seed) for seed in (10, 20))
    found = kl_divergence(p, q)
    torch.testing.assert_close(
        found, torch.distributions.kl_divergence(_torch(p), _torch(q)), rtol=1e-10, atol=0
    )
    precision = np.linalg.inv(q.covariance.numpy())
    error = (q.mean - p.mean).numpy()
    log_ratio = np.linalg.slogdet(q.covariance)[1] - np.linalg.slogdet(p.covariance)[1]
    trace = np.trace(precision @ p.covariance.numpy())
    expected = 0.5 * (trace - size + log_ratio + error @ precision @ error)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def _plain_wasserstein(p: FullGaussian, q: FullGaussian) -> float:
    """tr(A + B - 2 (B^½ A B^½)^½), by roots of the covariances themselves."""
    a, b = p.covariance.numpy(), q.covariance.numpy()
    root = np.real(sqrtm(b))
    cross = np.real(sqrtm(root @ a @ root))
    means = float((p.mean - q.mean).square().sum())
    return means + float(np.trace(a + b - 2 * cross))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_wasserstein_is_the_formula_of_matrix_roots(size: int, condition: float) -> None:
    p, q = (_random_full(size, condition, seed) for seed in (10, 20))
    np.testing.assert_allclose(wasserstein(p, q), _plain_wasserstein(p, q), rtol=1e-6)
    torch.testing.assert_close(wasserstein(p, q), wasserstein(q, p), rtol=1e-9, atol=0)


@settings(max_examples=60)
@given(
    size=st.integers(1, 25),
    condition=st.floats(0, 8).map(lambda exponent: 10.0**exponent),
    scale=scales,
    seed=st.integers(0, 1000),
)
def test_divergences_along_one_basis_are_sums_over_it(
    size: int, condition: float, scale: float, seed: int
) -> None:
    """Covariances that share their eigenvectors are diagonal ones, turned."""
    rng = np.random.default_rng(seed)
    basis = _basis(size, seed)
    spectra = [scale**2 * _spectrum(size, condition, seed + k) for k in (1, 2)]
    means = scale * rng.normal(size=(2, size))
    p, q = (_full(mean @ basis.T, basis, s) for mean, s in zip(means, spectra, strict=True))
    diagonals = [
        DiagonalGaussian(torch.from_numpy(mean), torch.from_numpy(s))
        for mean, s in zip(means, spectra, strict=True)
    ]
    for divergence in (kl_divergence, wasserstein):
        found, expected = divergence(p, q), divergence(*diagonals)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(
        p.log_prob(q.mean), diagonals[0].log_prob(diagonals[1].mean), rtol=1e-7, atol=1e-7
    )
    torch.testing.assert_close(p.entropy(), diagonals[0].entropy(), rtol=1e-9, atol=1e-7)


def test_divergences_by_hand() -> None:
    p = DiagonalGaussian(torch.tensor([1.0]), torch.tensor([4.0]))
    q = DiagonalGaussian(torch.tensor([3.0]), torch.tensor([1.0]))
    assert float(wasserstein(p, q)) == 4 + 1
    assert float(kl_divergence(p, q)) == pytest.approx(0.5 * (4 + 4 - 1 - np.log(4)))
    assert float(kl_divergence(q, p)) == pytest.approx(0.5 * (0.25 + 1 - 1 + np.log(4)))


@pytest.mark.parametrize("size", SIZES)
def test_diagonal_and_full_agree_on_diagonal_covariances(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    draws = torch.randn(4, 3, size, generator=generator, dtype=torch.float64)
    p, q = (DiagonalGaussian(draws[k], draws[k + 1].exp()) for k in (0, 2))
    fp, fq = (FullGaussian(g.mean, torch.diag_embed(g.std)) for g in (p, q))
    value, scale, shift = draws[1], draws[2, 0].exp(), draws[3, 0]
    for found, expected in (
        (fp.log_prob(value), p.log_prob(value)),
        (fp.entropy(), p.entropy()),
        (fp.sample(value), p.sample(value)),
        (fp.covariance, p.covariance),
        (fp.std, p.std),
        (fp.affine(scale, shift).covariance, p.affine(scale, shift).covariance),
        (fp.affine(scale, shift).mean, p.affine(scale, shift).mean),
        (kl_divergence(fp, fq), kl_divergence(p, q)),
        (wasserstein(fp, fq), wasserstein(p, q)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_no_divergence_from_itself(size: int, condition: float) -> None:
    p = _random_full(size, condition, seed=size)
    assert abs(float(kl_divergence(p, p))) < 1e-8
    assert 0 <= float(wasserstein(p, p)) < 1e-14


def test_a_sample_of_nan_harms_no_other() -> None:
    """LAPACK refuses a whole batch for one matrix that is not finite."""
    p, q = (_random_full(3, 10.0, seed) for seed in (1, 2))
    expected = wasserstein(p, q)
    for bad in (torch.nan, torch.inf):
        factor = torch.stack((p.scale_tril, torch.full((3, 3), bad, dtype=torch.float64)))
        mean = p.mean.expand(2, 3)
        found = wasserstein(FullGaussian(mean, factor), q[None])
        torch.testing.assert_close(found[0], expected)
        assert not found[1].isfinite()


# Gradients


def _leaves(size: int, seed: int) -> tuple[Tensor, Tensor]:
    gaussian = _random_full(size, 10.0, seed)
    return gaussian.mean.requires_grad_(), gaussian.scale_tril.requires_grad_()


def _lower(mean: Tensor, factor: Tensor) -> FullGaussian:
    return FullGaussian(mean, factor.tril())


@pytest.mark.parametrize("size", [1, 2, 5])
def test_gradients_of_one_gaussian_are_finite_differences(size: int) -> None:
    mean, factor = _leaves(size, seed=size)
    value = torch.linspace(-1, 1, size, dtype=torch.float64)
    scale, shift = value.exp(), value + 2
    for function in (
        lambda m, f: _lower(m, f).log_prob(value),
        lambda m, f: _lower(m, f).entropy(),
        lambda m, f: _lower(m, f).sample(value),
        lambda m, f: _lower(m, f).affine(scale, shift).log_prob(value),
        lambda m, f: DiagonalGaussian(m, f.diagonal().square()).log_prob(value),
        lambda m, f: DiagonalGaussian(m, f.diagonal().square()).entropy(),
    ):
        assert torch.autograd.gradcheck(function, (mean, factor))


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("divergence", [kl_divergence, wasserstein])
def test_gradients_of_divergences_are_finite_differences(size: int, divergence: Divergence) -> None:
    """In both arguments: apart, equal, and with eigenvalues that are all the same."""
    eye = torch.eye(size, dtype=torch.float64)
    mean = torch.linspace(-1, 1, size, dtype=torch.float64)
    apart = (*_leaves(size, seed=1), *_leaves(size, seed=2))
    one = _leaves(size, seed=3)
    equal = (*one, *(leaf.detach().clone().requires_grad_() for leaf in one))
    repeated = tuple(leaf.requires_grad_() for leaf in (mean, eye, mean + 1, 2 * eye))
    same_repeated = tuple(leaf.clone().requires_grad_() for leaf in (mean, eye, mean, eye))

    def full(pm: Tensor, pf: Tensor, qm: Tensor, qf: Tensor) -> Tensor:
        return divergence(_lower(pm, pf), _lower(qm, qf))

    def diagonal(pm: Tensor, pf: Tensor, qm: Tensor, qf: Tensor) -> Tensor:
        pv, qv = (f.diagonal().square() for f in (pf, qf))
        return divergence(DiagonalGaussian(pm, pv), DiagonalGaussian(qm, qv))

    for function in (full, diagonal):
        for leaves in (apart, equal, repeated, same_repeated):
            assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("divergence", [kl_divergence, wasserstein])
def test_no_gradient_where_both_are_equal(
    size: int, condition: float, divergence: Divergence
) -> None:
    p = _random_full(size, condition, seed=size)
    leaves = [t.detach().clone().requires_grad_() for t in (p.mean, p.scale_tril) * 2]
    divergence(_lower(*leaves[:2]), _lower(*leaves[2:])).backward()
    # The KL's gradient is a difference of inverses.
    unit = 1.0 if divergence is wasserstein else float(1 / p.scale_tril.diagonal().min())
    assert all(leaf.grad.abs().max() < 1e-11 * unit for leaf in leaves)


def test_float32_wasserstein_keeps_its_precision_near_zero() -> None:
    """Of a root of the covariances' product only half the digits would be left."""
    p = _random_full(4, 1e4, seed=0).apply(Tensor.float)
    q = FullGaussian(p.mean, p.scale_tril * 1.001)
    expected = float(1e-6 * p.scale_tril.double().square().sum())
    assert float(wasserstein(p, q)) == pytest.approx(expected, rel=1e-2)


# Maps and batches


def test_an_affine_map_by_hand() -> None:
    gaussian = FullGaussian(torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 0.0], [1.0, 3.0]]))
    moved = gaussian.affine(torch.tensor([10.0, 0.5]), torch.tensor([3.0, 4.0]))
    assert moved.mean.tolist() == [13.0, 5.0]
    # Row i, column j times scale i and scale j.
    assert moved.covariance.tolist() == [[400.0, 10.0], [10.0, 2.5]]
    plain = DiagonalGaussian(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 10.0]))
    moved = plain.affine(torch.tensor([10.0, 0.5]), torch.tensor([3.0, 4.0]))
    assert moved.mean.tolist() == [13.0, 5.0]
    assert moved.variance.tolist() == [400.0, 2.5]


@settings(max_examples=40)
@given(size=st.integers(1, 25), exponent=st.floats(-8, 8), seed=st.integers(0, 1000))
def test_an_affine_map_changes_the_density_by_its_volume(
    size: int, exponent: float, seed: int
) -> None:
    gaussian = _random_full(size, 1e4, seed)
    rng = np.random.default_rng(seed)
    scale = torch.from_numpy(10.0**exponent * np.exp(rng.normal(size=size)))
    shift = torch.from_numpy(rng.normal(size=size)) * scale
    value = torch.from_numpy(rng.normal(size=size))
    moved = gaussian.affine(scale, shift)
    expected = gaussian.log_prob(value) - scale.log().sum()
    torch.testing.assert_close(
        moved.log_prob(scale * value + shift), expected, rtol=1e-8, atol=1e-6
    )
    outer = scale.unsqueeze(-1) * scale * gaussian.covariance
    torch.testing.assert_close(moved.covariance, outer, rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", [DiagonalGaussian, FullGaussian])
def test_batches_are_indexed_and_joined(kind: type) -> None:
    tails = (2,) if kind is DiagonalGaussian else (2, 2)
    means = torch.arange(12.0).view(3, 2, 2)
    whole = kind(means, torch.arange(3 * 2 * 2 ** len(tails) * 1.0).view(3, 2, *tails))
    part = whole[[2, 0], 1]
    assert isinstance(part, kind)
    for found, every in zip(vars(part).values(), vars(whole).values(), strict=True):
        assert torch.equal(found, every[[2, 0], 1])
    for dim in (0, 1):
        pieces = [whole[(slice(None),) * dim + (slice(k, k + 1),)] for k in range(3 - dim)]
        again = concatenate(pieces, dim)
        for found, every in zip(vars(again).values(), vars(whole).values(), strict=True):
            assert torch.equal(found, every)
    assert whole.apply(Tensor.double).mean.dtype == torch.float64
