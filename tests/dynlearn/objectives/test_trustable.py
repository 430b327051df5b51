from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from dynlearn.config.objectives import TrustableSettings, TrustRegionNLLSettings
from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, Gaussian
from dynlearn.errors import InvalidInput
from dynlearn.models.heads import Head
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.objectives import BetaNLL, Objective, Trustable, TrustRegionNLL
from dynlearn.objectives.natural_gradient import natural_gradient_step

IDS = torch.arange(40).repeat(2, 1)


def _trustable(**options: Any) -> Trustable:
    no_bounds = {"mean_bound": None, "covariance_bound": None}
    return Trustable(TrustableSettings(**{"natural_step": 1e-4, **no_bounds, **options}), members=2)


def _bounds(metric: str, mean_bound: float | None, covariance_bound: float) -> dict[str, Any]:
    return {
        "trust_region": metric,
        "mean_bound": mean_bound,
        "covariance_bound": covariance_bound,
    }


def _network(kind: str = "variance", targets: int = 2, seed: int = 0) -> EnsembleNetwork:
    head = Head(kind, targets)  # type: ignore[arg-type]
    network = EnsembleNetwork(2, 3, (8,), head, "tanh").double()
    network.initialize("lecun_uniform", [torch.Generator().manual_seed(seed + i) for i in range(2)])
    return network


def _data(targets: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    return inputs, torch.randn(40, targets, generator=generator, dtype=torch.float64)


def _attached(objective: Objective, network: EnsembleNetwork) -> tuple[Tensor, Tensor]:
    inputs, targets = _data(network.head.targets)
    objective.attach(network, inputs, targets, [0, 1])
    return inputs, targets


def _gradients(objective: Objective, network: EnsembleNetwork) -> tuple[Tensor, Tensor]:
    """Return the loss's gradients by the predicted mean and by the deviation or the factor."""
    inputs, targets = _attached(objective, network)
    prediction = network(inputs)
    mean = prediction.mean.detach().requires_grad_()
    if isinstance(prediction, FullGaussian):
        scale = prediction.scale_tril.detach().requires_grad_()
        found: Gaussian = FullGaussian(mean, scale)
    else:
        scale = prediction.variance.detach().sqrt().requires_grad_()
        found = DiagonalGaussian(mean, scale.square())
    loss = objective.loss(found, targets.expand(2, -1, -1), IDS).sum()
    by_mean, by_scale = torch.autograd.grad(loss, (mean, scale))
    return by_mean, by_scale.tril() if by_scale.ndim == 4 else by_scale


@pytest.mark.parametrize("targets", [1, 3])
def test_without_bounds_w2_gives_the_gradient_of_beta_one(targets: int) -> None:
    """Finding 1 of the method: but for the constants 2 b of the mean and b / 2 of σ, per σ's 1."""
    network = _network(targets=targets)
    step = 1e-5
    mean, std = _gradients(_trustable(natural_step=step, regression_metric="w2"), network)
    reference_mean, reference_std = _gradients(BetaNLL(1.0), network)
    torch.testing.assert_close(mean, 2 * step * reference_mean, rtol=1e-3, atol=1e-12)
    torch.testing.assert_close(std, step * reference_std, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["variance", "scale_tril"])
def test_without_bounds_kl_gives_the_gradient_of_beta_nll(kind: str, beta: float) -> None:
    network = _network(kind, targets=3)
    step = 1e-5
    mean, scale = _gradients(_trustable(natural_step=step, beta=beta), network)
    reference_mean, reference_scale = _gradients(BetaNLL(beta), network)
    torch.testing.assert_close(mean, step * reference_mean, rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(scale, step * reference_scale, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("step", [0.05, 0.5, 1.0])
def test_a_natural_step_is_the_formula_with_matrices(size: int, step: float) -> None:
    rng = np.random.default_rng(size)
    mean, value = rng.normal(size=size), 3 * rng.normal(size=size)
    factor = np.tril(rng.normal(size=(size, size)))
    np.fill_diagonal(factor, rng.uniform(0.1, 2, size))
    moved = natural_gradient_step(
        FullGaussian(torch.from_numpy(mean), torch.from_numpy(factor)),
        torch.from_numpy(value),
        step,
    )
    z = linalg.solve_triangular(factor, value - mean, lower=True)
    x = step / 2 * (np.outer(z, z) - np.eye(size))
    root = factor @ (np.eye(size) + x + x @ x / 2)
    np.testing.assert_allclose(moved.mean, mean + step * (value - mean))
    np.testing.assert_allclose(moved.covariance, root @ root.T, rtol=1e-9, atol=1e-12)
    assert isinstance(moved, FullGaussian)
    assert torch.equal(moved.scale_tril, moved.scale_tril.tril())
    if size == 1:
        diagonal = natural_gradient_step(
            DiagonalGaussian(torch.from_numpy(mean), torch.from_numpy(factor[0] ** 2)),
            torch.from_numpy(value),
            step,
        )
        np.testing.assert_allclose(diagonal.variance, moved.variance)


def test_a_natural_step_towards_what_is_far_stays_positive_definite() -> None:
    gaussian = FullGaussian(torch.zeros(3).double(), 1e-4 * torch.eye(3).double())
    moved = natural_gradient_step(gaussian, torch.tensor([1e4, -1e4, 1e-4]).double(), 1.0)
    assert isinstance(moved, FullGaussian)
    assert (moved.scale_tril.diagonal() > 0).all()
    assert moved.scale_tril.isfinite().all()


def test_bounds_are_for_each_dimension() -> None:
    objective = _trustable(**_bounds("kl", 2.0, 0.5))
    _attached(objective, _network(targets=3))
    assert (objective.region.mean_bound, objective.region.covariance_bound) == (6.0, 1.5)


@pytest.mark.parametrize("metric", ["kl", "w2", "w2_unscaled", "frobenius"])
@pytest.mark.parametrize("kind", ["variance", "scale_tril"])
def test_the_loss_within_and_beyond_bounds_has_finite_gradients(metric: str, kind: str) -> None:
    bounds = _bounds(metric, 0.01, 0.01)
    for objective in (
        _trustable(**bounds, natural_step=0.5),
        TrustRegionNLL(TrustRegionNLLSettings(**bounds), members=2),
    ):
        network = _network(kind)
        inputs, targets = _attached(objective, network)
        for parameter in network.parameters():
            parameter.data += 0.3
        loss = objective.loss(network(inputs), targets.expand(2, -1, -1), IDS)
        assert loss.shape == (2,)
        gradients = torch.autograd.grad(loss.sum(), list(network.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any((gradient != 0).any() for gradient in gradients)


def test_targets_stay_in_the_region_around_the_old_distributions() -> None:
    """A network that is at its targets has no loss: the targets are found by fitting to them."""
    bounds = _bounds("w2", None, 0.01)
    objective, network = _trustable(**bounds, natural_step=1.0), _network(targets=1)
    inputs, targets = _attached(objective, network)
    old = network(inputs)
    far = targets.expand(2, -1, -1) + 100
    goal_std = (1 + 0.01**0.5) * old.std.detach()
    fitted = DiagonalGaussian(far.clone(), goal_std.square())
    loss = objective.loss(fitted, far, IDS)
    # The prediction is on the bound already and its mean on the target: the step only shrinks it.
    shrunk = goal_std * (1 - 0.5 + 0.125)
    least = torch.maximum(shrunk, (1 - 0.1) * old.std.detach())
    ratio = (least / goal_std).square()
    expected = 0.5 * (ratio - 1 - ratio.log()).sum(-1).mean(-1)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("old_distributions", ["samples", "snapshot"])
@pytest.mark.parametrize("kind", ["variance", "scale_tril"])
def test_old_distributions_are_refreshed_when_an_epoch_begins(
    kind: str, old_distributions: str
) -> None:
    objective = _trustable(refresh_epochs=2, old_distributions=old_distributions)
    network = _network(kind)
    inputs, _ = _attached(objective, network)

    def old() -> Tensor:
        return objective._memory.old(IDS).mean

    first = network(inputs).mean.detach()
    torch.testing.assert_close(old(), first)
    for parameter in network.parameters():
        parameter.data += 0.1
    for epoch in (0, 1):
        objective.begin_epoch(epoch)
        torch.testing.assert_close(old(), first)
    objective.begin_epoch(2)
    torch.testing.assert_close(old(), network(inputs).mean.detach())


def test_a_refresh_moves_no_sample_beyond_the_bounds() -> None:
    bounds = _bounds("kl", 0.1, 0.1)
    objective, network = _trustable(**bounds), _network("scale_tril")
    _attached(objective, network)
    before = objective._memory.old(IDS)
    for parameter in network.parameters():
        parameter.data += 0.5
    objective.begin_epoch(1)
    after = objective._memory.old(IDS)
    region = objective.region
    assert float(region.mean_distance(after, before).max()) == pytest.approx(0.2)
    assert float(region.covariance_distance(after, before).max()) == pytest.approx(0.2)


def test_samples_are_found_by_their_ids() -> None:
    objective, network = _trustable(), _network()
    inputs, _ = _attached(objective, network)
    ids = torch.tensor([[3, 39], [0, 3]])
    mean = objective._memory.old(ids).mean
    for member in range(2):
        torch.testing.assert_close(mean[member], network(inputs).mean[member, ids[member]].detach())


def test_too_much_memory_is_refused_with_the_figure_and_the_remedy() -> None:
    # 40 samples × (2 means + 2 variances) × 8 bytes.
    objective = _trustable(memory_limit_gib=2e-9)
    with pytest.raises(InvalidInput, match=r"1e-09 GiB .* got 1.19e-06 GiB for 40 .* snapshot"):
        _attached(objective, _network())


def test_the_memory_is_logged_before_training(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="dynlearn"):
        _attached(_trustable(), _network())
    assert caplog.messages == ["old distributions of 40 samples of 2 members: 2.38e-06 GiB"]


def test_an_objective_describes_itself() -> None:
    assert _trustable().describe() == "trustable, fitted in kl, step 0.0001, β = 0"
    bounded = _trustable(**_bounds("w2", 2, 0.5), beta=0.25)
    assert bounded.describe() == (
        "trustable, fitted in kl, step 0.0001, β = 0.25, w2 bound of the mean 2, w2 bound of the "
        "covariance 0.5"
    )
    within = TrustRegionNLL(TrustRegionNLLSettings(), members=2)
    assert within.describe() == "trust_region_nll, kl bound of the covariance 0.1"
    assert BetaNLL(0.5).describe() == "beta_nll, β = 0.5"
