import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import fractional_matrix_power
from torch import Tensor

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.models.heads import Head
from dynlearn.objectives import NLL, BetaNLL

E, B, D = 2, 5, 3
BETAS = [0.0, 0.25, 0.5, 0.75, 1.0]
IDS = torch.arange(E * B).view(E, B)


def _leaves(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean, variance, target = torch.randn(3, E, B, D, generator=generator, dtype=torch.float64)
    return mean.requires_grad_(), (variance.exp()).requires_grad_(), target


def _spectra(size: int, condition: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues [E, B, D] from 1 down to 1 / condition, and eigenvectors."""
    rng = np.random.default_rng(size)
    basis = np.linalg.qr(rng.normal(size=(E, B, size, size)))[0]
    exponents = np.broadcast_to(np.linspace(0, 1, size), (E, B, size))
    return condition ** -rng.permuted(exponents, axis=-1), basis


def _full_leaves(size: int = D, condition: float = 10.0) -> tuple[Tensor, Tensor, Tensor]:
    """Means, factors of covariances of a condition number, and targets around the means."""
    rng = np.random.default_rng(size + 1)
    mean = rng.normal(size=(E, B, size))
    eigenvalues, basis = _spectra(size, condition)
    lower = np.linalg.qr((basis * np.sqrt(eigenvalues)[..., None, :]).swapaxes(-1, -2))[1]
    lower = lower.swapaxes(-1, -2)
    lower = lower * np.sign(np.diagonal(lower, axis1=-2, axis2=-1))[..., None, :]
    target = mean + (lower @ rng.normal(size=(E, B, size, 1)))[..., 0]
    leaves = (torch.from_numpy(part).requires_grad_() for part in (mean, lower))
    return *leaves, torch.from_numpy(target)


# Diagonal covariance


@pytest.mark.parametrize("beta", BETAS)
def test_beta_nll_is_the_formula(beta: float) -> None:
    mean, variance, target = _leaves()
    loss = BetaNLL(beta).loss(DiagonalGaussian(mean, variance), target, IDS)
    assert loss.shape == (E,)
    for member in range(E):
        total = 0.0
        for row in range(B):
            for column in range(D):
                v = float(variance.detach()[member, row, column])
                error = float((target - mean.detach())[member, row, column])
                total += v**beta * 0.5 * (error**2 / v + math.log(v) + math.log(2 * math.pi))
        assert float(loss[member].detach()) == pytest.approx(total / B)


@pytest.mark.parametrize("beta", BETAS)
def test_beta_nll_has_the_gradients_of_the_paper(beta: float) -> None:
    mean, variance, target = _leaves()
    BetaNLL(beta).loss(DiagonalGaussian(mean, variance), target, IDS).sum().backward()
    v, error = variance.detach(), (mean - target).detach()
    torch.testing.assert_close(mean.grad, v**beta * error / v / B)
    torch.testing.assert_close(variance.grad, v**beta * (v - error**2) / (2 * v**2) / B)


@pytest.mark.parametrize("objective", [NLL(), BetaNLL(0.0)], ids=["nll", "beta zero"])
def test_beta_zero_is_plain_nll(objective: NLL) -> None:
    mean, variance, target = _leaves()
    loss = objective.loss(DiagonalGaussian(mean, variance), target, IDS)
    plain = torch.nn.functional.gaussian_nll_loss(
        mean, target, variance, full=True, eps=0.0, reduction="none"
    )
    torch.testing.assert_close(loss, plain.sum(-1).mean(-1))


def test_beta_one_gives_the_mean_the_gradient_of_half_the_squared_error() -> None:
    mean, variance, target = _leaves()
    BetaNLL(1.0).loss(DiagonalGaussian(mean, variance), target, IDS).sum().backward()
    torch.testing.assert_close(mean.grad, (mean - target).detach() / B)


def test_the_gradient_is_the_finite_difference_with_the_weight_frozen() -> None:
    mean, variance, target = _leaves()
    weight = variance.detach() ** 0.5

    def frozen(shift_of_mean: Tensor, shift_of_variance: Tensor) -> float:
        shifted = DiagonalGaussian(
            mean.detach() + shift_of_mean, variance.detach() + shift_of_variance
        )
        return float((weight * -shifted.log_prob_per_dimension(target)).sum() / B)

    BetaNLL(0.5).loss(DiagonalGaussian(mean, variance), target, IDS).sum().backward()
    step, none = 1e-6, torch.zeros(E, B, D, dtype=torch.float64)
    for place in ((0, 0, 0), (1, 4, 2)):
        shift = none.clone()
        shift[place] = step
        slope_of_mean = (frozen(shift, none) - frozen(-shift, none)) / (2 * step)
        slope_of_variance = (frozen(none, shift) - frozen(none, -shift)) / (2 * step)
        assert float(mean.grad[place]) == pytest.approx(slope_of_mean, rel=1e-5)
        assert float(variance.grad[place]) == pytest.approx(slope_of_variance, rel=1e-5)


def test_the_weight_is_per_dimension() -> None:
    mean, variance, target = _leaves()
    changed = variance.detach().clone()
    changed[..., 0] *= 1000
    gradients = []
    for value in (variance.detach(), changed):
        leaf = mean.detach().clone().requires_grad_()
        BetaNLL(0.5).loss(DiagonalGaussian(leaf, value), target, IDS).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0][..., 1:], gradients[1][..., 1:], rtol=0, atol=0)
    assert not torch.allclose(gradients[0][..., 0], gradients[1][..., 0])


@given(beta=st.sampled_from(BETAS), exponent=st.floats(-8, 2), error=st.floats(-1e3, 1e3))
def test_float32_gradients_are_finite_at_every_variance_of_the_head(
    beta: float, exponent: float, error: float
) -> None:
    mean = torch.full((1, 1, 1), error, requires_grad=True)
    variance = torch.full((1, 1, 1), max(10.0**exponent, 1e-8), requires_grad=True)
    target = torch.zeros(1, 1, 1)
    loss = BetaNLL(beta).loss(DiagonalGaussian(mean, variance), target, torch.zeros(1, 1))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert mean.grad.isfinite().all()
    assert variance.grad.isfinite().all()


# Full covariance


Power = Callable[[float], NDArray[np.float64]]


def _plain_gradients(
    power: Power, factor: NDArray[np.float64], error: NDArray[np.float64], beta: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Σ^β ∂μ and Σ^{β/2} ∂Σ Σ^{β/2}, the latter as the gradient of the factor.

    ``power`` gives powers of Σ; the error is the target less the mean.
    """
    weighted_error = power(beta / 2 - 1) @ error
    weighted = 0.5 * (power(beta - 1) - np.outer(weighted_error, weighted_error))
    return -power(beta - 1) @ error, np.tril((weighted + weighted.T) @ factor)


def _check_full(beta: float, size: int, condition: float, slack: float, power_of: Any) -> None:
    mean, factor, target = _full_leaves(size, condition)
    BetaNLL(beta).loss(FullGaussian(mean, factor.tril()), target, IDS).sum().backward()
    for place in ((0, 0), (1, 4)):
        lower = factor[place].detach().numpy()
        error = (target - mean)[place].detach().numpy()
        expected = _plain_gradients(power_of(place, lower), lower, error, beta)
        for leaf, plain in zip((mean, factor), expected, strict=True):
            scale = np.abs(plain).max()
            np.testing.assert_allclose(leaf.grad[place] * B, plain, rtol=slack, atol=slack * scale)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_full_beta_nll_has_the_gradients_of_scipys_matrix_powers(beta: float, size: int) -> None:
    def power_of(_: object, lower: NDArray[np.float64]) -> Power:
        return lambda power: np.real(fractional_matrix_power(lower @ lower.T, power))

    _check_full(beta, size, 10.0, 1e-9, power_of)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("size", [1, 2, 8, 25])
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8])
def test_full_beta_nll_has_the_gradients_of_known_eigenvalues(
    beta: float, size: int, condition: float
) -> None:
    eigenvalues, basis = _spectra(size, condition)

    def power_of(place: tuple[int, int], _: object) -> Power:
        return lambda power: basis[place] * eigenvalues[place] ** power @ basis[place].T

    _check_full(beta, size, condition, max(1e-9, 1e-13 * condition), power_of)


def test_the_plain_formula_without_weight_is_autograd_of_torchs_density() -> None:
    """What the tests above compare with, from another side."""
    mean, factor, target = _full_leaves()
    normal = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
    (-normal.log_prob(target).sum()).backward()
    eigenvalues, basis = _spectra(D, 10.0)
    for place in ((0, 0), (1, 4)):
        by_mean, by_factor = _plain_gradients(
            lambda power: basis[place] * eigenvalues[place] ** power @ basis[place].T,  # noqa: B023
            factor[place].detach().numpy(),
            (target - mean)[place].detach().numpy(),
            0.0,
        )
        np.testing.assert_allclose(mean.grad[place], by_mean)
        np.testing.assert_allclose(factor.grad[place].tril(), by_factor, atol=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_full_is_diagonal_where_the_covariance_is(beta: float) -> None:
    gradients = []
    for full in (False, True):
        mean, variance, target = _leaves()
        prediction = DiagonalGaussian(mean, variance)
        if full:
            prediction = FullGaussian(mean, torch.diag_embed(variance.sqrt()))
        BetaNLL(beta).loss(prediction, target, IDS).sum().backward()
        gradients.append((mean.grad, variance.grad))
    for diagonal, full in zip(*gradients, strict=True):
        torch.testing.assert_close(full, diagonal, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("objective", [NLL(), BetaNLL(0.0)], ids=["nll", "beta zero"])
def test_gradients_without_weight_are_finite_differences(objective: NLL) -> None:
    mean, factor, target = _full_leaves()

    def loss(mean: Tensor, factor: Tensor) -> Tensor:
        return objective.loss(FullGaussian(mean, factor.tril()), target, IDS)

    assert torch.autograd.gradcheck(loss, (mean, factor))


@pytest.mark.parametrize("beta", BETAS)
def test_the_value_with_full_covariance_is_the_nll(beta: float) -> None:
    mean, factor, target = _full_leaves()
    prediction = FullGaussian(mean, factor)
    loss = BetaNLL(beta).loss(prediction, target, IDS)
    torch.testing.assert_close(loss, NLL().loss(prediction, target, IDS))
    normal = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
    torch.testing.assert_close(loss, -normal.log_prob(target).mean(1))


@pytest.mark.parametrize("beta", BETAS)
def test_gradients_hold_where_eigenvalues_repeat(beta: float) -> None:
    """At the identity, where an eigendecomposition's own gradient is not even finite."""
    mean = torch.zeros(E, B, D, dtype=torch.float64, requires_grad=True)
    factor = torch.eye(D, dtype=torch.float64).repeat(E, B, 1, 1).requires_grad_()
    _, _, target = _leaves()
    BetaNLL(beta).loss(FullGaussian(mean, factor.tril()), target, IDS).sum().backward()
    torch.testing.assert_close(mean.grad, -target / B)
    outer = target.unsqueeze(-1) * target.unsqueeze(-2)
    expected = (torch.eye(D, dtype=torch.float64) - outer).tril() / B
    torch.testing.assert_close(factor.grad, expected)


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("size", [2, 10])
@pytest.mark.parametrize("magnitude", [1.0, 30.0, 1e4])
def test_weighted_float32_gradients_are_finite_whatever_the_network_puts_out(
    beta: float, size: int, magnitude: float
) -> None:
    """Even where the smallest eigenvalue is far below the rounding of the largest."""
    head = Head("scale_tril", size)
    generator = torch.Generator().manual_seed(0)
    raw = magnitude * torch.randn(E, B, sum(head.blocks), generator=generator)
    raw.requires_grad_()
    prediction = head.distribution(raw[..., :size], raw[..., size:])
    BetaNLL(beta).loss(prediction, torch.zeros(E, B, size), IDS).sum().backward()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_member_that_diverged_harms_no_other(bad: float) -> None:
    """LAPACK refuses a whole batch for one matrix that is not finite."""
    gradients = []
    for sick in (False, True):
        mean, factor, target = _full_leaves()
        values = factor.detach().clone()
        if sick:
            values[1] = bad
        leaf = values.requires_grad_()
        BetaNLL(0.5).loss(FullGaussian(mean, leaf), target, IDS).sum().backward()
        gradients.append((mean.grad[0], leaf.grad[0]))
        assert bool(leaf.grad[1].isfinite().all()) != sick
    for healthy, other in zip(*gradients, strict=True):
        assert torch.equal(healthy, other)
