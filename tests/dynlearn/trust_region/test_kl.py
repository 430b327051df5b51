import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, special

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, Gaussian, kl_divergence
from dynlearn.trust_region import TrustRegion

MakeGaussian = Callable[..., Gaussian]
Matrix = NDArray[np.float64]


def _diagonal(variances: list[float] | torch.Tensor) -> DiagonalGaussian:
    variance = torch.as_tensor(variances, dtype=torch.float64)
    return DiagonalGaussian(torch.zeros_like(variance), variance)


def _kl(covariance: Matrix, other: Matrix) -> float:
    trace = np.trace(np.linalg.solve(other, covariance)) - len(other)
    return float(0.5 * (trace + np.linalg.slogdet(other)[1] - np.linalg.slogdet(covariance)[1]))


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_the_distance_is_the_kl_divergence_of_equal_means(
    make_gaussian: MakeGaussian, kind: str
) -> None:
    new, old = make_gaussian(kind, 4, 0), make_gaussian(kind, 4, 1, scale=3.0)
    found = TrustRegion("kl", 1.0, 1.0).covariance_distance(new, old)
    centred = new.apply(torch.clone)
    centred.mean.copy_(old.mean)
    torch.testing.assert_close(found, kl_divergence(centred, old))
    pairs = zip(new.covariance.numpy(), old.covariance.numpy(), strict=True)
    expected = [_kl(*pair) for pair in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("bound", [0.02, 0.5])
def test_the_projection_is_the_nearest_in_kl_to_the_new_one_within_the_bound(
    make_gaussian: MakeGaussian, size: int, bound: float, seed: int
) -> None:
    new = make_gaussian("full", size, seed, count=1, scale=5.0)
    old = make_gaussian("full", size, seed + 10, count=1)
    target, centre = new.covariance[0].numpy(), old.covariance[0].numpy()
    assert _kl(target, centre) > bound

    def covariance(parameters: Matrix) -> Matrix:
        factor = np.zeros((size, size))
        factor[np.tril_indices(size)] = parameters
        return factor @ factor.T

    best = optimize.minimize(
        lambda parameters: _kl(covariance(parameters), target),
        np.linalg.cholesky(centre)[np.tril_indices(size)],
        constraints={"type": "ineq", "fun": lambda p: bound - _kl(covariance(p), centre)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    projected = TrustRegion("kl", math.inf, bound).project(new, old).covariance[0].numpy()
    np.testing.assert_allclose(projected, covariance(best.x), rtol=1e-4, atol=1e-5)
    assert _kl(projected, target) <= best.fun + 1e-7


def test_the_projected_precision_mixes_both_precisions(make_gaussian: MakeGaussian) -> None:
    new, old = make_gaussian("full", 5, 0, 1e3, scale=4.0), make_gaussian("full", 5, 1, 1e3)
    projected = TrustRegion("kl", math.inf, 0.2).project(new, old)
    towards, way = (torch.linalg.inv(g.covariance) for g in (projected, new))
    start = torch.linalg.inv(old.covariance)
    towards, way = towards - start, way - start
    weight = (towards * way).sum((-2, -1)) / way.square().sum((-2, -1))
    assert ((weight > 0) & (weight < 1)).all()
    torch.testing.assert_close(towards, weight[:, None, None] * way, rtol=1e-6, atol=1e-6)


@given(ratio=st.floats(-12, 12), bound=st.floats(-6, 2.5), old=st.floats(-8, 8))
def test_one_dimension_stops_where_lamberts_function_says(
    ratio: float, bound: float, old: float
) -> None:
    bound = 10**bound
    region = TrustRegion("kl", math.inf, bound)
    found = region.project(_diagonal([10 ** (old + ratio)]), _diagonal([10**old])).variance
    # ½ (κ - 1 - ln κ) = ε has the roots κ = -W(-exp(-1 - 2 ε)), one on either side of 1.
    least, most = (-special.lambertw(-np.exp(-1 - 2 * bound), branch).real for branch in (0, -1))
    if bound < 100:
        expected = 10**old * np.clip(10**ratio, least, most)
        np.testing.assert_allclose(found, [expected], rtol=1e-6)


@given(
    exponents=st.lists(st.floats(-16, 16), min_size=1, max_size=28),
    bound=st.floats(-8, 3),
    seed=st.integers(0, 100),
)
@settings(max_examples=300)
def test_the_bound_is_met_however_far_the_variances_are(
    exponents: list[float], bound: float, seed: int
) -> None:
    region = TrustRegion("kl", math.inf, 10**bound)
    old = _diagonal([1.0] * len(exponents))
    new = _diagonal(10.0 ** torch.tensor(exponents, dtype=torch.float64))
    before = region.covariance_distance(new, old)
    projected = region.project(new, old)
    after = region.covariance_distance(projected, old)
    torch.testing.assert_close(after, before.clamp(max=10**bound), rtol=1e-6, atol=0)


def test_a_variance_of_zero_is_infinitely_far_and_comes_back() -> None:
    new = DiagonalGaussian(torch.zeros(2, 2), torch.tensor([[0.0, 1.0], [9.0, 9.0]]))
    old = DiagonalGaussian(torch.zeros(2, 2), torch.ones(2, 2))
    region = TrustRegion("kl", math.inf, 0.1)
    projected = region.project(new, old)
    assert torch.equal(projected.variance[0], new.variance[0])
    assert region.covariance_distance(projected, old).tolist() == pytest.approx([math.inf, 0.1])


def test_a_factor_of_either_scale_is_on_the_bound() -> None:
    """The ratio's eigenvalues lie sixteen orders apart where two ill-conditioned ones cross."""
    factor = torch.diag(torch.tensor([1e-4, 1e4], dtype=torch.float64)).unsqueeze(0)
    old = FullGaussian(torch.zeros(1, 2).double(), factor)
    new = FullGaussian(old.mean, factor.flip(-1, -2))
    region = TrustRegion("kl", math.inf, 0.5)
    found = region.covariance_distance(region.project(new, old), old)
    torch.testing.assert_close(found, torch.full_like(found, 0.5), rtol=1e-6, atol=0)
