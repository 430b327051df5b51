import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor

from dynlearn.distributions.student_t import StudentT, VariationalStudentT
from dynlearn.models.heads import Head

# The head's ranges.
concentrations = st.floats(math.log(1.001), math.log(1000)).map(math.exp)
rates = st.floats(math.log(1e-11), math.log(1e6)).map(math.exp)
errors_in_scales = st.floats(-8, 8).map(lambda x: math.copysign(math.expm1(abs(x)), x))


def _student_t(*parameters: float, dtype: torch.dtype = torch.float64) -> StudentT:
    return StudentT(*(torch.tensor([value], dtype=dtype) for value in parameters))


@given(mean=st.floats(-1e3, 1e3), a=concentrations, b=rates, error=errors_in_scales)
def test_the_density_is_scipys(mean: float, a: float, b: float, error: float) -> None:
    scale = math.sqrt(b / a)
    value = mean + error * scale
    computed = float(_student_t(mean, a, b).log_prob(torch.tensor([value], dtype=torch.float64)))
    assert computed == pytest.approx(stats.t.logpdf(value, 2 * a, mean, scale), rel=1e-9, abs=1e-9)


@given(a=concentrations, b=rates, error=errors_in_scales)
def test_float32_gives_the_density_and_the_slopes_of_float64(
    a: float, b: float, error: float
) -> None:
    found: dict[torch.dtype, tuple[Tensor, ...]] = {}
    for dtype in (torch.float32, torch.float64):
        # The same numbers, all of them float32's.
        numbers = torch.tensor([0.0, a, b, error * math.sqrt(b / a)]).to(dtype)
        *parameters, value = numbers.split(1)
        for parameter in parameters:
            parameter.requires_grad_()
        density = StudentT(*parameters).log_prob(value)
        found[dtype] = (density.detach(), *torch.autograd.grad(density, parameters))
    # At a good fit the terms of the slopes cancel, so each is measured by its largest term.
    terms = (1 + 2 * a, a / math.sqrt(b), math.log1p(error**2 / a) + 1 / a, 1 / b + 2 * a / b)
    for single, double, term in zip(*found.values(), terms, strict=True):
        assert abs(float(single - double)) < 2e-6 * term


@pytest.mark.parametrize(("a", "b", "value"), [(1.5, 0.3, 0.2), (4.0, 8.0, -3.0), (30.0, 2.0, 1.0)])
def test_it_is_a_gaussian_whose_precision_is_gamma_distributed(
    a: float, b: float, value: float
) -> None:
    def joint(precision: float) -> float:
        return stats.norm.pdf(value, 0.5, precision**-0.5) * stats.gamma.pdf(precision, a, 0, 1 / b)

    density, _ = integrate.quad(joint, 0, stats.gamma.isf(1e-14, a, 0, 1 / b), epsabs=1e-12)
    computed = _student_t(0.5, a, b).log_prob(torch.tensor([value], dtype=torch.float64))
    assert float(computed) == pytest.approx(math.log(density), abs=1e-6)


@given(a=concentrations, b=rates)
def test_the_variance_is_scipys(a: float, b: float) -> None:
    distribution = _student_t(0.0, a, b)
    expected = stats.t.var(2 * a, 0, math.sqrt(b / a))
    assert float(distribution.variance) == pytest.approx(expected, rel=1e-9)
    assert float(distribution.covariance[0, 0]) == float(distribution.variance)


def test_the_joint_density_is_the_product_of_the_dimensions() -> None:
    parameters = torch.rand(3, 4, 2, dtype=torch.float64) + 1.1
    distribution = StudentT(*parameters)
    value = torch.randn(4, 2, dtype=torch.float64)
    parts = [
        StudentT(*parameters[..., [column]]).log_prob(value[:, [column]]) for column in range(2)
    ]
    torch.testing.assert_close(distribution.log_prob(value), parts[0] + parts[1])


def test_an_affine_map_moves_the_density_along() -> None:
    distribution = StudentT(*(torch.rand(3, 5, 2, dtype=torch.float64) + 1.1))
    scale = torch.tensor([1e-3, 40.0], dtype=torch.float64)
    shift = torch.tensor([7.0, -2.0], dtype=torch.float64)
    value = torch.randn(5, 2, dtype=torch.float64)
    moved = distribution.affine(scale, shift)
    torch.testing.assert_close(
        moved.log_prob(value * scale + shift), distribution.log_prob(value) - scale.log().sum()
    )
    torch.testing.assert_close(moved.variance, distribution.variance * scale**2)


def test_samples_are_of_the_gaussian_with_the_same_moments() -> None:
    distribution = _student_t(3.0, 2.0, 5.0)
    quantiles = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
    expected = torch.tensor([[3 - 5**0.5], [3.0], [3 + 2 * 5**0.5]], dtype=torch.float64)
    torch.testing.assert_close(distribution.sample(quantiles), expected)


# The head


def test_the_head_begins_at_a_variance_of_one_and_few_degrees_of_freedom() -> None:
    answer = Head("student_t", 2).distribution(torch.zeros(1, 3, 2), torch.zeros(1, 3, 4))
    assert isinstance(answer, StudentT)
    # softplus(0) + 1.001, and as much less one.
    torch.testing.assert_close(answer.concentration, torch.full((1, 3, 2), 1.694147))
    torch.testing.assert_close(answer.rate, torch.full((1, 3, 2), 0.694147))
    torch.testing.assert_close(answer.variance, torch.ones(1, 3, 2))


@given(
    raw=st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=2),
    error=st.floats(-1e6, 1e6),
)
def test_the_head_is_finite_at_every_raw_output(raw: list[float], error: float) -> None:
    mean = torch.zeros(1, 1, requires_grad=True)
    outputs = torch.tensor([raw], requires_grad=True)
    answer = Head("student_t", 1).distribution(mean, outputs)
    assert isinstance(answer, StudentT)
    assert 1.001 <= round(answer.concentration.item(), 6) <= 1000
    assert 0.9e-11 <= answer.rate.item() <= 999_000
    assert 0 < answer.variance.item() < math.inf
    density = answer.log_prob(torch.tensor([[error]]))
    assert density.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(density.sum(), (mean, outputs)))


def test_the_head_lays_out_concentrations_rates_and_each_targets_logits() -> None:
    head = Head("student_t", 2, components=3)
    assert head.blocks == (2, 2, 2, 6)
    raw = torch.arange(10.0).expand(4, 5, 10)
    answer = head.distribution(torch.zeros(4, 5, 2), raw)
    assert isinstance(answer, VariationalStudentT)
    plain = Head("student_t", 2).distribution(torch.zeros(4, 5, 2), raw[..., :4])
    assert isinstance(plain, StudentT)
    assert torch.equal(answer.concentration, plain.concentration)
    assert torch.equal(answer.rate, plain.rate)
    assert answer.prior_logits[0, 0].tolist() == [[4, 5, 6], [7, 8, 9]]


def test_a_part_of_the_batch_keeps_its_logits() -> None:
    tensors = [torch.rand(2, 4, 3) + 1.1 for _ in range(3)]
    whole = VariationalStudentT(*tensors, torch.rand(2, 4, 3, 7))
    part = whole[1, :2]
    assert torch.equal(part.prior_logits, whole.prior_logits[1, :2])
    assert torch.equal(part.rate, whole.rate[1, :2])
    # What leaves the standardised units no longer needs a prior.
    assert type(whole.affine(torch.ones(3), torch.zeros(3))) is StudentT


def test_many_degrees_of_freedom_are_a_gaussian() -> None:
    value = torch.linspace(-3, 3, 7, dtype=torch.float64).unsqueeze(-1)
    computed = _student_t(0.0, 1000.0, 999.0).log_prob(value)
    np.testing.assert_allclose(computed, stats.norm.logpdf(value[:, 0]), atol=0.01)


def test_noise_widens_the_variance() -> None:
    widened = _student_t(0, 3, 8).widen(torch.tensor([3.0], dtype=torch.float64))
    assert (widened.variance.tolist(), widened.concentration.tolist()) == ([4 + 9], [3])
