import math
from collections.abc import Callable

import pytest
import torch

from dynlearn.distributions.gaussian import Gaussian
from dynlearn.trust_region import TrustRegion

MakeGaussian = Callable[..., Gaussian]


@pytest.mark.parametrize("kind", ["diagonal", "full"])
@pytest.mark.parametrize("size", [1, 4])
def test_the_covariance_is_drawn_back_in_a_straight_line(
    make_gaussian: MakeGaussian, kind: str, size: int
) -> None:
    new, old = make_gaussian(kind, size, 0, scale=4.0), make_gaussian(kind, size, 1)
    region = TrustRegion("frobenius", math.inf, 0.7)
    change = new.covariance - old.covariance
    distance = change.square().sum((-2, -1))
    torch.testing.assert_close(region.covariance_distance(new, old), distance)
    share = (0.7 / distance).sqrt().clamp(max=1)[:, None, None]
    found = region.project(new, old).covariance
    torch.testing.assert_close(found, old.covariance + share * change)


def test_a_small_change_of_a_large_covariance_is_measured_by_the_factors(
    make_gaussian: MakeGaussian,
) -> None:
    """Squared first, a change of 1e-9 would drown in the rounding of 1e8."""
    old = make_gaussian("full", 3, 0, scale=1e8)
    new = type(old)(old.mean, old.scale_tril * (1 + 1e-13))
    region = TrustRegion("frobenius", 1.0, 1.0)
    # 1 + 1e-13 is itself rounded, by 1e-16.
    expected = (2e-13 * old.covariance).square().sum((-2, -1))
    torch.testing.assert_close(region.covariance_distance(new, old), expected, rtol=1e-2, atol=0)
