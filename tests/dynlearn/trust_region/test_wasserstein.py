import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from dynlearn.config.choices import TrustRegionMetric
from dynlearn.distributions.gaussian import DiagonalGaussian, Gaussian, wasserstein
from dynlearn.trust_region import TrustRegion

MakeGaussian = Callable[..., Gaussian]


def _of_stds(stds: list[float]) -> DiagonalGaussian:
    std = torch.tensor(stds, dtype=torch.float64)
    return DiagonalGaussian(torch.zeros_like(std), std.square())


@given(ratio=st.floats(-12, 12), bound=st.floats(-6, 4), old=st.floats(-4, 4))
def test_one_dimension_stays_within_the_root_of_the_bound(
    ratio: float, bound: float, old: float
) -> None:
    bound, old, ratio = 10**bound, 10**old, 10**ratio
    reach = bound**0.5
    region = TrustRegion("w2", math.inf, bound)
    found = region.project(_of_stds([old * ratio]), _of_stds([old])).std / old
    expected = np.clip(ratio, max(0, 1 - reach), 1 + reach)
    np.testing.assert_allclose(found, [expected], rtol=1e-9)
    unscaled = TrustRegion("w2_unscaled", math.inf, bound)
    found = unscaled.project(_of_stds([old * ratio]), _of_stds([old])).std
    expected = np.clip(old * ratio, max(0, old - reach), old + reach)
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_a_bound_of_the_dimensions_limits_no_shrinkage() -> None:
    old, new = _of_stds([1.0, 2.0, 3.0]), _of_stds([1e-6, 1e-9, 1e-7])
    region = TrustRegion("w2", math.inf, 3.0)
    assert torch.equal(region.project(new, old).variance, new.variance)
    tight = TrustRegion("w2", math.inf, 0.03).project(new, old)
    torch.testing.assert_close(tight.std / old.std, torch.full((3,), 0.9).double())


def test_a_growth_without_measure_lands_on_the_bound() -> None:
    old, new = _of_stds([1e-8, 1.0]), _of_stds([1e30, 1.0])
    region = TrustRegion("w2", math.inf, 1.0)
    torch.testing.assert_close(
        region.project(new, old).std, torch.tensor([2e-8, 1.0], dtype=torch.float64)
    )


@pytest.mark.parametrize("metric", ["w2", "w2_unscaled"])
@pytest.mark.parametrize("size", [1, 3, 6])
def test_distance_and_projection_are_those_of_scipys_roots(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, size: int
) -> None:
    new, old = make_gaussian("full", size, 0, scale=4.0), make_gaussian("full", size, 1)
    bound = 0.2
    region = TrustRegion(metric, math.inf, bound)
    distances, projected = region.covariance_distance(new, old), region.project(new, old)
    for sample in range(8):
        root = linalg.sqrtm(new.covariance[sample].numpy())
        old_root = linalg.sqrtm(old.covariance[sample].numpy())
        change = root - old_root
        if metric == "w2":
            change = change @ linalg.inv(old_root)
        distance = np.square(change).sum()
        np.testing.assert_allclose(distances[sample], distance, rtol=1e-9)
        share = min(1, (bound / distance) ** 0.5)
        mixed = old_root + share * (root - old_root)
        np.testing.assert_allclose(projected.covariance[sample], mixed @ mixed, rtol=1e-8)


def test_unscaled_it_is_the_wasserstein_distance_of_commuting_covariances(
    make_gaussian: MakeGaussian,
) -> None:
    new, old = make_gaussian("diagonal", 5, 0), make_gaussian("diagonal", 5, 1)
    region = TrustRegion("w2_unscaled", 1.0, 1.0)
    both = region.covariance_distance(new, old) + region.mean_distance(new, old)
    torch.testing.assert_close(both, wasserstein(new, old))
