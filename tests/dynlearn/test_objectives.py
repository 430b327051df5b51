import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.gaussian import DiagonalGaussian
from dynlearn.objectives import MSE, BetaNLL, make_objective

E, B, D = 2, 5, 3
BETAS = [0.0, 0.25, 0.5, 0.75, 1.0]
IDS = torch.arange(E * B).view(E, B)


def _leaves(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean, variance, target = torch.randn(3, E, B, D, generator=generator, dtype=torch.float64)
    return mean.requires_grad_(), (variance.exp()).requires_grad_(), target


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


def test_beta_zero_is_plain_nll() -> None:
    mean, variance, target = _leaves()
    loss = BetaNLL(0.0).loss(DiagonalGaussian(mean, variance), target, IDS)
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


def test_mse_is_the_mean_over_rows_and_columns_and_ignores_the_variance() -> None:
    mean, variance, target = _leaves()
    loss = MSE().loss(DiagonalGaussian(mean, variance), target, IDS)
    torch.testing.assert_close(loss, ((mean - target) ** 2).sum((1, 2)) / (B * D))
    loss.sum().backward()
    assert variance.grad is None


@pytest.mark.parametrize(
    ("name", "kind", "learned_variance"),
    [("beta_nll", BetaNLL, True), ("nll", BetaNLL, True), ("mse", MSE, False)],
)
def test_objectives_by_name(name: str, kind: type, learned_variance: bool) -> None:
    config = TrainConfig(dataset="d", model="m", objective=name, beta=0.75)
    objective = make_objective(config)
    assert isinstance(objective, kind)
    assert objective.learned_variance is learned_variance
    if isinstance(objective, BetaNLL):
        assert objective.beta == (0.75 if name == "beta_nll" else 0)
