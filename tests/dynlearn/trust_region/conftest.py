"""Random Gaussians of a given condition number."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, Gaussian

MakeGaussian = Callable[..., Gaussian]


def _gaussian(
    kind: str, size: int, seed: int, condition: float = 10.0, count: int = 8, scale: float = 1.0
) -> Gaussian:
    """Return [count, size], the covariances' eigenvalues up to ``condition`` apart."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator, dtype=torch.float64)

    exponent = torch.rand(count, size, generator=generator, dtype=torch.float64) - 0.5
    exponent[:, 0], exponent[:, -1] = -0.5, 0.5
    variance = scale * condition**exponent
    mean = scale**0.5 * normal(size)
    if kind == "diagonal":
        return DiagonalGaussian(mean, variance)
    basis = torch.linalg.qr(normal(size, size)).Q
    upper = torch.linalg.qr((basis * variance.sqrt().unsqueeze(-2)).mT).R
    sign = upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return FullGaussian(mean, upper.mT * sign)


@pytest.fixture(scope="session")
def make_gaussian() -> MakeGaussian:
    """Return a maker of Gaussians in float64."""
    return _gaussian
