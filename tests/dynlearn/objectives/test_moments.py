import pytest
import torch
from torch import Tensor

from dynlearn.distributions.gaussian import DiagonalGaussian
from dynlearn.errors import InvalidInput
from dynlearn.objectives import MSE, MomentMatching

E, B, D = 2, 5, 3
IDS = torch.arange(E * B).view(E, B)


def _leaves() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, variance, target = torch.randn(3, E, B, D, generator=generator, dtype=torch.float64)
    return mean.requires_grad_(), (variance.exp()).requires_grad_(), target


def test_mse_is_the_mean_over_rows_and_columns_and_ignores_the_variance() -> None:
    mean, variance, target = _leaves()
    loss = MSE().loss(DiagonalGaussian(mean, variance), target, IDS)
    torch.testing.assert_close(loss, ((mean - target) ** 2).sum((1, 2)) / (B * D))
    loss.sum().backward()
    assert variance.grad is None


def test_moment_matching_is_the_formula() -> None:
    mean, variance, target = _leaves()
    loss = MomentMatching().loss(DiagonalGaussian(mean, variance), target, IDS)
    assert loss.shape == (E,)
    for member in range(E):
        total = 0.0
        for row in range(B):
            for column in range(D):
                std = float(variance.detach()[member, row, column]) ** 0.5
                error = float((target - mean.detach())[member, row, column])
                total += error**2 + (std - abs(error)) ** 2
        assert float(loss[member].detach()) == pytest.approx(total / (B * D))


def test_the_mean_knows_nothing_of_the_deviation_that_is_matched() -> None:
    mean, variance, target = _leaves()
    MomentMatching().loss(DiagonalGaussian(mean, variance), target, IDS).sum().backward()
    error, std = (mean - target).detach(), variance.detach().sqrt()
    torch.testing.assert_close(mean.grad, 2 * error / (B * D))
    # Of the deviation: 2 (σ - |r|), and ∂σ / ∂v is 1 / 2σ.
    torch.testing.assert_close(variance.grad, (std - error.abs()) / std / (B * D))


def test_moment_matching_at_its_best_is_the_mean_absolute_residual() -> None:
    """0.798 of a Gaussian's standard deviation."""
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(1, 200_000, 1, generator=generator, dtype=torch.float64)
    deviation = residual.abs().mean().requires_grad_()
    assert float(deviation.detach()) == pytest.approx(0.798, abs=0.003)
    gaussian = DiagonalGaussian(torch.zeros_like(residual), deviation.square().expand_as(residual))
    MomentMatching().loss(gaussian, residual, IDS).sum().backward()
    assert abs(float(deviation.grad)) < 1e-9


@pytest.mark.parametrize("objective", [MSE(), MomentMatching()])
def test_moments_have_no_full_covariance(objective: MSE) -> None:
    with pytest.raises(
        InvalidInput, match=r"expected a diagonal covariance with .*, got full; take"
    ):
        objective.head("full")
