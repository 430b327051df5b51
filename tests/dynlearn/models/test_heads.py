import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.distributions.mixture import Distribution
from dynlearn.distributions.student_t import StudentT, VariationalStudentT
from dynlearn.models.heads import Head

LEARNED = ["variance", "std", "scale_tril", "student_t"]
DTYPES = [torch.float32, torch.float64]
wild = st.floats(-1e6, 1e6)


def _raw_width(head: Head) -> int:
    return sum(head.blocks[1:])


def _one(kind: str, raw: Tensor) -> Distribution:
    """One dimension, all its raw outputs but the mean's from ``raw``."""
    return Head(kind, 1).distribution(torch.zeros_like(raw[..., :1]), raw)


@pytest.mark.parametrize(
    ("kind", "components", "blocks"),
    [
        ("mean", 0, (3,)),
        ("variance", 0, (3, 3)),
        ("std", 0, (3, 3)),
        ("scale_tril", 0, (3, 6)),
        ("student_t", 0, (3, 3, 3)),
        ("student_t", 7, (3, 3, 3, 21)),
    ],
)
@pytest.mark.parametrize("batch", [(), (5,), (2, 5), (2, 0)])
def test_shapes(
    kind: str, components: int, blocks: tuple[int, ...], batch: tuple[int, ...]
) -> None:
    head = Head(kind, 3, components)
    assert head.blocks == blocks
    if kind == "mean":
        return
    distribution = head.distribution(torch.randn(*batch, 3), torch.randn(*batch, _raw_width(head)))
    assert distribution.mean.shape == distribution.variance.shape == (*batch, 3)
    assert distribution.covariance.shape == (*batch, 3, 3)
    assert distribution.log_prob(torch.zeros(*batch, 3)).shape == batch
    assert distribution.sample(torch.zeros(*batch, 3)).shape == (*batch, 3)
    if components:
        assert isinstance(distribution, VariationalStudentT)
        assert distribution.prior_logits.shape == (*batch, 3, components)


@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize("size", [1, 4])
def test_raw_outputs_of_zero_are_unit_covariance(kind: str, size: int) -> None:
    head = Head(kind, size)
    mean = torch.linspace(-1, 1, size, dtype=torch.float64)
    raw = torch.zeros(_raw_width(head), dtype=torch.float64)
    distribution = head.distribution(mean, raw)
    assert torch.equal(distribution.mean, mean)
    eye = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(distribution.covariance, eye, rtol=0, atol=1e-12)


def test_the_student_t_of_raw_zeros_is_the_papers() -> None:
    distribution = _one("student_t", torch.zeros(2, dtype=torch.float64))
    assert isinstance(distribution, StudentT)
    assert float(distribution.concentration) == pytest.approx(1.694, abs=5e-4)
    assert float(distribution.rate) == pytest.approx(0.694, abs=5e-4)


BOUNDS = {
    "variance": ("variance", 1e-8, 100.0),
    "std": ("std", 1e-4, 100.0),
    "scale_tril": ("std", 1e-4, 100.0),
    "student_t": ("concentration", 1.001, 1000.0),
}


@pytest.mark.parametrize("kind", LEARNED)
@given(raw=wild)
def test_scales_stay_within_their_bounds_and_their_gradients_finite(kind: str, raw: float) -> None:
    name, least, most = BOUNDS[kind]
    for dtype in DTYPES:
        leaf = torch.full((2 if kind == "student_t" else 1,), raw, dtype=dtype, requires_grad=True)
        scale = getattr(_one(kind, leaf), name)
        scale.sum().backward()
        slack = 1 + 4 * torch.finfo(dtype).eps
        assert least / slack <= float(scale.detach()) <= most * slack
        assert leaf.grad.isfinite().all()
        # Of a softplus, or of its square.
        assert 0 <= float(leaf.grad[0]) <= 1 + 1e-6


@given(raw=wild)
def test_the_rate_of_a_student_t_stays_within_its_bounds(raw: float) -> None:
    for dtype in DTYPES:
        leaf = torch.full((2,), raw, dtype=dtype, requires_grad=True)
        distribution = _one("student_t", leaf)
        distribution.variance.sum().backward()
        assert 9e-12 < float(distribution.rate.detach()) < 1e6
        assert 0 < float(distribution.variance.detach()) < math.inf
        assert leaf.grad.isfinite().all()


@given(raw=st.floats(-15, 90))
def test_a_variance_is_the_formula_and_its_gradient_the_finite_difference(raw: float) -> None:
    def plain(x: float) -> float:
        return float(np.logaddexp(0, x + math.log(math.expm1(1 - 1e-8)))) + 1e-8

    leaf = torch.tensor([raw], dtype=torch.float64, requires_grad=True)
    variance = _one("variance", leaf).variance
    variance.sum().backward()
    assert float(variance.detach()) == pytest.approx(plain(raw), rel=1e-8)
    step = 1e-5
    slope = (plain(raw + step) - plain(raw - step)) / (2 * step)
    assert float(leaf.grad) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("kind", LEARNED)
def test_the_bound_from_above_kills_the_gradient(kind: str) -> None:
    leaf = torch.full((2 if kind == "student_t" else 1,), 1e6, requires_grad=True)
    distribution = _one(kind, leaf)
    getattr(distribution, BOUNDS[kind][0]).sum().backward()
    assert not leaf.grad.any()


@pytest.mark.parametrize("kind", LEARNED)
def test_gradients_are_finite_differences(kind: str) -> None:
    head = Head(kind, 3, components=2 if kind == "student_t" else 0)
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3), (2, _raw_width(head)))
    leaves = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]

    def parts(mean: Tensor, raw: Tensor) -> tuple[Tensor, ...]:
        return tuple(vars(head.distribution(mean, raw)).values())

    assert torch.autograd.gradcheck(parts, leaves)


@settings(max_examples=60)
@given(
    size=st.integers(1, 25),
    magnitude=st.floats(-3, 6).map(lambda exponent: 10.0**exponent),
    seed=st.integers(0, 1000),
)
def test_a_factor_is_lower_triangular_and_its_diagonal_positive(
    size: int, magnitude: float, seed: int
) -> None:
    """Positive definite by construction, whatever the network puts out."""
    head = Head("scale_tril", size)
    generator = torch.Generator().manual_seed(seed)
    for dtype in DTYPES:
        raw = magnitude * torch.randn(4, _raw_width(head), generator=generator, dtype=dtype)
        raw.requires_grad_()
        gaussian = head.distribution(torch.zeros(4, size, dtype=dtype), raw)
        assert isinstance(gaussian, FullGaussian)
        factor = gaussian.scale_tril
        factor.sum().backward()
        assert raw.grad.isfinite().all()
        factor = factor.detach()
        diagonal = torch.diagonal(factor, dim1=1, dim2=2)
        assert torch.equal(factor, factor.tril())
        assert diagonal.min() >= torch.tensor(1e-4, dtype=dtype)
        assert diagonal.max() <= 100
        assert factor.isfinite().all()
        # Every raw output has a place of its own below the diagonal, in units of its row's.
        row, column = torch.tril_indices(size, size, -1)
        assert torch.equal(factor[:, row, column], diagonal[:, row] * raw.detach()[:, size:])


@pytest.mark.parametrize("size", [1, 2, 6])
def test_a_covariance_has_its_factor(size: int) -> None:
    head = Head("scale_tril", size)
    generator = torch.Generator().manual_seed(0)
    raw = 2 * torch.randn(50, _raw_width(head), generator=generator, dtype=torch.float64)
    gaussian = head.distribution(torch.zeros(50, size, dtype=torch.float64), raw)
    assert isinstance(gaussian, FullGaussian)
    again = torch.linalg.cholesky(gaussian.covariance)
    torch.testing.assert_close(again, gaussian.scale_tril, rtol=1e-6, atol=1e-6)


def test_a_row_in_units_of_its_deviation_by_hand() -> None:
    """Twice the deviation scales all of a row: the correlations stay."""
    head = Head("scale_tril", 3)
    raw = torch.tensor([0.0, 1.0, -1.0, 0.5, 2.0, -3.0], dtype=torch.float64)
    gaussian = head.distribution(torch.zeros(3, dtype=torch.float64), raw)
    assert isinstance(gaussian, FullGaussian)
    unit = torch.tensor([[1.0, 0, 0], [0.5, 1, 0], [2, -3, 1]], dtype=torch.float64)
    deviation = _one("std", raw[:3].unsqueeze(1)).variance.sqrt()
    torch.testing.assert_close(gaussian.scale_tril, deviation * unit)


def test_a_full_head_of_one_target_is_a_standard_deviation() -> None:
    raw = torch.linspace(-5, 5, 11, dtype=torch.float64).unsqueeze(1)
    full, std = _one("scale_tril", raw), _one("std", raw)
    assert isinstance(std, DiagonalGaussian)
    torch.testing.assert_close(full.variance, std.variance)
