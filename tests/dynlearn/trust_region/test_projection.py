"""What every metric's projection must do, on both kinds of Gaussian."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlearn.config.choices import TrustRegionMetric
from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, Gaussian
from dynlearn.errors import InvalidInput
from dynlearn.trust_region import TrustRegion

MakeGaussian = Callable[..., Gaussian]

METRICS = get_args(TrustRegionMetric)
KINDS = ("diagonal", "full")
every = pytest.mark.parametrize(
    ("metric", "kind"), [(metric, kind) for metric in METRICS for kind in KINDS]
)


def _scale(gaussian: Gaussian) -> torch.Tensor:
    return gaussian.scale_tril if isinstance(gaussian, FullGaussian) else gaussian.variance


@given(
    metric=st.sampled_from(METRICS),
    kind=st.sampled_from(KINDS),
    size=st.integers(1, 25),
    conditions=st.tuples(st.floats(0, 8), st.floats(0, 8)),
    magnitude=st.floats(-2, 2),
    bounds=st.tuples(st.floats(-4, 3), st.floats(-4, 3)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=300)
def test_what_is_beyond_lands_on_the_bound_and_what_is_within_is_untouched(
    make_gaussian: MakeGaussian,
    metric: TrustRegionMetric,
    kind: str,
    size: int,
    conditions: tuple[float, float],
    magnitude: float,
    bounds: tuple[float, float],
    seed: int,
) -> None:
    new = make_gaussian(kind, size, seed, 10 ** conditions[0], scale=10**magnitude)
    old = make_gaussian(kind, size, seed + 1, 10 ** conditions[1])
    region = TrustRegion(metric, 10 ** bounds[0], 10 ** bounds[1])
    projected = region.project(new, old)

    for distance, bound, before, after in (
        (region.mean_distance, region.mean_bound, new.mean, projected.mean),
        (region.covariance_distance, region.covariance_bound, _scale(new), _scale(projected)),
    ):
        beyond = distance(new, old) > bound
        reached = distance(projected, old)[beyond]
        torch.testing.assert_close(reached, torch.full_like(reached, bound), rtol=1e-6, atol=0)
        assert torch.equal(before[~beyond], after[~beyond])
    if isinstance(projected, FullGaussian):
        assert torch.equal(projected.scale_tril, projected.scale_tril.tril())
        assert (projected.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    else:
        assert (projected.variance > 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_full_is_diagonal_on_diagonal_matrices(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, size: int
) -> None:
    new, old = make_gaussian("diagonal", size, 0, 1e6), make_gaussian("diagonal", size, 1, 1e3)
    full_new, full_old = (FullGaussian(g.mean, torch.diag_embed(g.std)) for g in (new, old))
    region = TrustRegion(metric, 0.3, 0.5)
    torch.testing.assert_close(
        region.covariance_distance(full_new, full_old), region.covariance_distance(new, old)
    )
    expected, found = region.project(new, old), region.project(full_new, full_old)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.covariance, expected.covariance, rtol=1e-9, atol=1e-12)


@every
def test_gradients_are_those_of_finite_differences(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str
) -> None:
    new = make_gaussian(kind, 3, 0, count=6, scale=9.0)
    old = make_gaussian(kind, 3, 1, count=6)
    # Half of the batch is near the old one, so within the bounds.
    near = (torch.arange(6) % 2 == 0).reshape(-1, 1)
    mean = torch.where(near, old.mean + 0.01 * new.mean, new.mean)
    near = near.reshape((-1,) + (1,) * (_scale(old).ndim - 1))
    scale = torch.where(near, _scale(old) * 1.001, _scale(new))
    region = TrustRegion(metric, 0.4, 0.05)
    beyond = region.covariance_distance(type(new)(mean, scale), old) > 0.05
    assert beyond.tolist() == [False, True] * 3
    assert (region.mean_distance(type(new)(mean, scale), old) > 0.4).tolist() == [False, True] * 3
    _check_gradient(region, mean, scale, old)


@every
@pytest.mark.parametrize("factor", [0.01, 0.9, 1.0, 1.1, 100.0])
def test_gradients_hold_at_repeated_eigenvalues(
    metric: TrustRegionMetric, kind: str, factor: float
) -> None:
    size = 3
    old_scale = torch.eye(size) if kind == "full" else torch.ones(size)
    of = FullGaussian if kind == "full" else DiagonalGaussian
    old = of(torch.zeros(1, size).double(), old_scale.double().unsqueeze(0))
    mean = torch.full((1, size), factor - 1, dtype=torch.float64)
    region = TrustRegion(metric, 1e-3, 1e-3)
    new = of(mean, factor * _scale(old))
    # At a factor of 1 old and new are one: within both bounds, with the gradient of the identity.
    assert (region.covariance_distance(new, old) > 1e-3).item() == (factor != 1)
    _check_gradient(region, mean, _scale(new), old)


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_hold_where_two_eigenvalues_meet(metric: TrustRegionMetric) -> None:
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
    covariance = (rotation * torch.tensor([4.0, 4.0, 0.25, 1.0])) @ rotation.T
    scale = torch.linalg.cholesky(covariance.double()).unsqueeze(0)
    mean = torch.zeros(1, 4, dtype=torch.float64)
    old = FullGaussian(mean, torch.eye(4, dtype=torch.float64).unsqueeze(0))
    _check_gradient(TrustRegion(metric, math.inf, 0.3), mean, scale, old)


@every
def test_gradients_hold_at_condition_numbers_to_1e8(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str
) -> None:
    new = make_gaussian(kind, 25, 0, 1e8, scale=4.0)
    old = make_gaussian(kind, 25, 1, 1e8)
    region = TrustRegion(metric, math.inf, 0.3)
    assert (region.covariance_distance(new, old) > 0.3).all()
    step, weights = make_gaussian(kind, 25, 2, 1.0), make_gaussian(kind, 25, 3)

    def value(size: torch.Tensor) -> torch.Tensor:
        # A relative change, so that the least eigenvalue changes as much as the largest.
        if isinstance(new, FullGaussian):
            changed = new.scale_tril + size * new.scale_tril @ step.scale_tril
        else:
            changed = new.variance * (1 + size * step.mean)
        projected = _scale(region.project(type(new)(new.mean, changed), old))
        # In units of the old one, for the same reason.
        if isinstance(old, FullGaussian):
            projected = torch.linalg.solve_triangular(old.scale_tril, projected, upper=False)
            return (projected * weights.scale_tril).sum((-2, -1))
        return (projected / old.variance * weights.mean).sum(-1)

    size = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    found = torch.stack([torch.autograd.grad(v, size, retain_graph=True)[0] for v in value(size)])
    with torch.no_grad():
        step_size = torch.tensor([1e-5], dtype=torch.float64)
        differences = (value(step_size) - value(-step_size)) / 2e-5
    torch.testing.assert_close(found.squeeze(-1), differences, rtol=1e-5, atol=1e-6)


def _check_gradient(
    region: TrustRegion, mean: torch.Tensor, scale: torch.Tensor, old: Gaussian
) -> None:
    def project(mean: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        new = type(old)(mean, scale.tril() if isinstance(old, FullGaussian) else scale)
        projected = region.project(new, old)
        return projected.mean, _scale(projected)

    inputs = mean.clone().requires_grad_(), scale.clone().requires_grad_()
    assert torch.autograd.gradcheck(project, inputs, atol=1e-6, rtol=1e-4)


@every
def test_a_sample_barely_beyond_is_projected(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str
) -> None:
    new, old = make_gaussian(kind, 3, 0, scale=9.0), make_gaussian(kind, 3, 1)
    barely = TrustRegion(metric, 0.1 * (1 + 1e-5), 0.1 * (1 + 1e-5)).project(new, old)
    region = TrustRegion(metric, 0.1, 0.1)
    projected = region.project(barely, old)
    bounds = torch.full((8,), 0.1, dtype=torch.float64)
    torch.testing.assert_close(region.mean_distance(projected, old), bounds, rtol=1e-9, atol=0)
    distances = region.covariance_distance(projected, old)
    torch.testing.assert_close(distances, bounds, rtol=1e-9, atol=0)


@every
def test_one_rounding_beyond_the_bound_the_gradient_is_finite(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str
) -> None:
    new, old = make_gaussian(kind, 3, 0, scale=9.0), make_gaussian(kind, 3, 1)
    distances = TrustRegion(metric, 1.0, 1.0).covariance_distance(new, old)
    for sample, distance in enumerate(distances.tolist()):
        region = TrustRegion(metric, math.inf, math.nextafter(distance, 0))
        one = slice(sample, sample + 1)
        _, scale, _, gradient = _projected_with_gradient(region, new[one], old[one])
        torch.testing.assert_close(scale, _scale(new)[one])
        assert gradient.isfinite().all()


@pytest.mark.parametrize("metric", METRICS)
def test_the_upper_triangle_of_a_factor_has_no_gradient(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric
) -> None:
    new, old = make_gaussian("full", 3, 0, scale=9.0), make_gaussian("full", 3, 1)
    *_, gradient = _projected_with_gradient(TrustRegion(metric, math.inf, 0.1), new, old)
    assert torch.equal(gradient, gradient.tril())


@every
def test_no_gradient_reaches_the_old_one(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str
) -> None:
    new = make_gaussian(kind, 2, 0).apply(torch.Tensor.requires_grad_)
    old = make_gaussian(kind, 2, 1, scale=9.0).apply(torch.Tensor.requires_grad_)
    projected = TrustRegion(metric, 0.1, 0.1).project(new, old)
    (projected.mean.sum() + _scale(projected).sum()).backward()
    assert old.mean.grad is None
    assert _scale(old).grad is None
    assert _scale(new).grad is not None


@every
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 0.0])
@pytest.mark.parametrize("part", ["mean", "scale", "old"])
def test_a_degenerate_sample_comes_back_and_harms_no_other(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str, poison: float, part: str
) -> None:
    region = TrustRegion(metric, 0.1, 0.1)
    new, old = make_gaussian(kind, 3, 0), make_gaussian(kind, 3, 1, scale=4.0)
    sound = [0, 1, 3, 4, 5, 6, 7]
    sound_mean, sound_scale = new.mean[sound].clone(), _scale(new)[sound].clone()
    expected = _projected_with_gradient(region, type(new)(sound_mean, sound_scale), old[sound])

    {"mean": new.mean, "scale": _scale(new), "old": _scale(old)}[part][2].fill_(poison)
    found = _projected_with_gradient(region, new, old)
    for was, now in zip(expected, found, strict=True):
        torch.testing.assert_close(now[sound], was, rtol=1e-12, atol=1e-12)
    if poison == 0:
        return
    if part != "mean":
        assert torch.equal(found[1][2].nan_to_num(7), _scale(new)[2].nan_to_num(7))
        torch.testing.assert_close(found[3][2], torch.ones_like(found[3][2]))
    else:
        assert torch.equal(found[0][2].nan_to_num(7), new.mean[2].nan_to_num(7))


def _projected_with_gradient(
    region: TrustRegion, new: Gaussian, old: Gaussian
) -> tuple[torch.Tensor, ...]:
    mean, scale = new.mean.clone().requires_grad_(), _scale(new).clone().requires_grad_()
    projected = region.project(type(new)(mean, scale), old)
    parts = projected.mean, _scale(projected)
    gradients = torch.autograd.grad(parts, (mean, scale), [torch.ones_like(x) for x in parts])
    return *(x.detach() for x in parts), *gradients


@every
def test_float32_stays_float32_and_what_is_within_keeps_its_bits(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str
) -> None:
    new = make_gaussian(kind, 4, 0).apply(torch.Tensor.float)
    old = make_gaussian(kind, 4, 1, scale=4.0).apply(torch.Tensor.float)
    loose = TrustRegion(metric, 1e9, 1e9).project(new, old)
    assert torch.equal(loose.mean, new.mean)
    assert torch.equal(_scale(loose), _scale(new))
    region = TrustRegion(metric, 0.01, 0.01)
    tight = region.project(new, old)
    assert tight.mean.dtype == _scale(tight).dtype == torch.float32
    bounds = torch.full((8,), 0.01, dtype=torch.float64)
    torch.testing.assert_close(region.mean_distance(tight, old), bounds, rtol=1e-4, atol=0)
    torch.testing.assert_close(region.covariance_distance(tight, old), bounds, rtol=1e-4, atol=0)


@every
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0)])
def test_any_batch_dimensions(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str, shape: tuple[int, ...]
) -> None:
    new, old = make_gaussian(kind, 3, 0, count=6), make_gaussian(kind, 3, 1, count=6, scale=4.0)
    region = TrustRegion(metric, 0.1, 0.1)
    expected = region.project(new, old)
    count = math.prod(shape)

    def shaped(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:count].reshape(*shape, *tensor.shape[1:])

    found = region.project(new.apply(shaped), old.apply(shaped))
    torch.testing.assert_close(found.mean, shaped(expected.mean))
    torch.testing.assert_close(_scale(found), shaped(_scale(expected)))
    assert region.mean_distance(found, old.apply(shaped)).shape == shape


@every
def test_infinity_is_no_bound(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str
) -> None:
    new, old = make_gaussian(kind, 3, 0), make_gaussian(kind, 3, 1, scale=4.0)
    no_mean = TrustRegion(metric, math.inf, 0.1).project(new, old)
    assert torch.equal(no_mean.mean, new.mean)
    assert not torch.equal(_scale(no_mean), _scale(new))
    no_covariance = TrustRegion(metric, 0.1, math.inf).project(new, old)
    assert torch.equal(_scale(no_covariance), _scale(new))
    assert not torch.equal(no_covariance.mean, new.mean)


@every
def test_the_mean_stays_on_its_line(
    make_gaussian: MakeGaussian, metric: TrustRegionMetric, kind: str
) -> None:
    new, old = make_gaussian(kind, 3, 0), make_gaussian(kind, 3, 1)
    region = TrustRegion(metric, 0.1, math.inf)
    moved = region.project(new, old).mean - old.mean
    precision = torch.linalg.inv(old.covariance)
    if metric == "w2_unscaled":
        precision = torch.eye(3, dtype=torch.float64).expand_as(precision)
    full = new.mean - old.mean
    squared = torch.einsum("bi,bij,bj->b", full, precision, full)
    share = (0.1 / squared).sqrt().clamp(max=1).unsqueeze(-1)
    torch.testing.assert_close(moved, share * full)
    torch.testing.assert_close(region.mean_distance(new, old), squared)


def test_refusals(make_gaussian: MakeGaussian) -> None:
    with pytest.raises(InvalidInput, match="did you mean w2"):
        TrustRegion("w3", 1.0, 1.0)  # type: ignore[arg-type]
    for bound in (0.0, -1.0, math.nan):
        with pytest.raises(InvalidInput, match="mean_bound must be positive"):
            TrustRegion("kl", bound, 1.0)
        with pytest.raises(InvalidInput, match="covariance_bound must be positive"):
            TrustRegion("kl", 1.0, bound)
    region = TrustRegion("kl", 1.0, 1.0)
    with pytest.raises(InvalidInput, match="same kind and shape"):
        region.project(make_gaussian("full", 2, 0), make_gaussian("diagonal", 2, 0))
    with pytest.raises(InvalidInput, match="same kind and shape"):
        region.project(make_gaussian("full", 2, 0), make_gaussian("full", 2, 0, count=3))
