"""Each optimizer's step against an independent formula, and who converges on the 1-D cases."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power, logm
from torch import Tensor
from torch.autograd.functional import hessian
from torch.distributions import MultivariateNormal

from benchmarks.gaussian_fits.cases import (
    Case,
    Moments,
    draw,
    multivariate_cases,
    univariate_cases,
)
from benchmarks.gaussian_fits.figures import draw_kl, draw_trajectories
from benchmarks.gaussian_fits.optimizers import (
    Adam,
    Fit,
    GradientDescent,
    LocalDescent,
    gauss_newton,
    gradients,
    natural_gradient,
    tractable,
)
from benchmarks.gaussian_fits.parametrisations import (
    LOGARITHM,
    PARAMETRISATIONS,
    SQUARE_ROOT,
    Parametrisation,
)
from benchmarks.gaussian_fits.study import UNIVARIATE, Key, Trace, run_study
from benchmarks.non_contextual import figures, table
from dynlearn.distributions.gaussian import FullGaussian, kl_divergence
from dynlearn.objectives.natural_gradient import natural_gradient_step
from dynlearn.trust_region import TrustRegion

INSTANCES, SAMPLES, DIMENSIONS = 4, 30, 3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """More threads only wait for each other over matrices of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def gaussian() -> FullGaussian:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(INSTANCES, DIMENSIONS, DIMENSIONS, generator=generator).double().tril()
    diagonal = root.diagonal(dim1=-2, dim2=-1)
    factor = root.tril(-1) + torch.diag_embed(diagonal.abs() + 0.5)
    return FullGaussian(torch.randn(INSTANCES, DIMENSIONS, generator=generator).double(), factor)


@pytest.fixture
def samples() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 1.3 * torch.randn(INSTANCES, SAMPLES, DIMENSIONS, generator=generator).double() + 0.5


def covariance_of(numbers: Tensor, parametrisation: Parametrisation) -> Tensor:
    if parametrisation is SQUARE_ROOT:
        return numbers.tril() @ numbers.tril().mT
    return torch.linalg.matrix_exp(0.5 * (numbers + numbers.mT))


def nll(mean: Tensor, covariance: Tensor, samples: Tensor) -> Tensor:
    return -MultivariateNormal(mean[:, None], covariance[:, None]).log_prob(samples).mean(1).sum()


def second_moment(mean: Tensor, samples: Tensor) -> Tensor:
    errors = samples - mean[:, None]
    return errors.mT @ errors / samples.shape[1]


def test_moments(samples: Tensor) -> None:
    moments = Moments.of(samples)
    for instance in range(INSTANCES):
        own = samples[instance].numpy()
        np.testing.assert_allclose(moments.mean[instance], own.mean(0))
        np.testing.assert_allclose(moments.covariance[instance], np.cov(own.T, ddof=0))


def test_numbers(gaussian: FullGaussian) -> None:
    logarithm = LOGARITHM.numbers(gaussian.scale_tril)
    for number, covariance in zip(logarithm, gaussian.covariance, strict=True):
        np.testing.assert_allclose(number, logm(covariance.numpy()), atol=1e-12)
    for parametrisation in PARAMETRISATIONS.values():
        factor = parametrisation.factor(parametrisation.numbers(gaussian.scale_tril))
        torch.testing.assert_close(factor, gaussian.scale_tril)
    flipped = SQUARE_ROOT.factor(-gaussian.scale_tril)
    torch.testing.assert_close(flipped, gaussian.scale_tril)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
def test_gradient_descent(
    gaussian: FullGaussian, samples: Tensor, parametrisation: Parametrisation
) -> None:
    numbers = parametrisation.numbers(gaussian.scale_tril).clone().requires_grad_()
    mean = gaussian.mean.clone().requires_grad_()
    nll(mean, covariance_of(numbers, parametrisation), samples).backward()
    assert mean.grad is not None
    assert numbers.grad is not None
    stepped = GradientDescent(parametrisation, 0.01)(gaussian, Moments.of(samples))
    torch.testing.assert_close(stepped.mean, gaussian.mean - 0.01 * mean.grad)
    expected = covariance_of(numbers.detach() - 0.01 * numbers.grad, parametrisation)
    torch.testing.assert_close(stepped.covariance, expected)


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
def test_pitfalls(
    gaussian: FullGaussian, samples: Tensor, parametrisation: Parametrisation, beta: float
) -> None:
    numbers = parametrisation.numbers(gaussian.scale_tril)
    by_mean, by_numbers = gradients(gaussian, Moments.of(samples), numbers, parametrisation, beta)
    second = second_moment(gaussian.mean, samples)
    for i in range(INSTANCES):
        covariance = gaussian.covariance[i].numpy()
        inverse = np.linalg.inv(covariance)
        # Eq. 3 of the paper, and A.1's weights.
        plain = -inverse @ (samples[i].mean(0) - gaussian.mean[i]).numpy()
        np.testing.assert_allclose(by_mean[i], fractional_matrix_power(covariance, beta) @ plain)
        root = fractional_matrix_power(covariance, beta / 2)
        by_covariance = -0.5 * root @ inverse @ (second[i].numpy() - covariance) @ inverse @ root
        (expected,) = torch.autograd.functional.vjp(
            lambda numbers: covariance_of(numbers, parametrisation),
            numbers[i],
            torch.from_numpy(by_covariance),
        )[1:]
        torch.testing.assert_close(by_numbers[i], expected)


def test_the_logarithm_s_gradient_at_equal_eigenvalues(samples: Tensor) -> None:
    """There ∂Σ/∂M is Σ itself, so at the identity both gradients are the same."""
    identity = torch.eye(DIMENSIONS, dtype=torch.float64).expand(INSTANCES, -1, -1)
    gaussian = FullGaussian(torch.zeros(INSTANCES, DIMENSIONS, dtype=torch.float64), identity)
    numbers = LOGARITHM.numbers(identity)
    _, by_numbers = gradients(gaussian, Moments.of(samples), numbers, LOGARITHM)
    torch.testing.assert_close(by_numbers, 0.5 * (identity - second_moment(gaussian.mean, samples)))


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
def test_adam(gaussian: FullGaussian, samples: Tensor, parametrisation: Parametrisation) -> None:
    mean = gaussian.mean.clone().requires_grad_()
    numbers = parametrisation.numbers(gaussian.scale_tril).clone().requires_grad_()
    reference = torch.optim.Adam([mean, numbers], 0.3, eps=1e-7)
    step = Adam(gaussian, parametrisation, 0.3)
    for _ in range(8):
        reference.zero_grad()
        nll(mean, covariance_of(numbers, parametrisation), samples).backward()
        reference.step()
        gaussian = step(gaussian, Moments.of(samples))
    torch.testing.assert_close(gaussian.mean, mean.detach())
    expected = covariance_of(numbers.detach(), parametrisation)
    torch.testing.assert_close(gaussian.covariance, expected)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
def test_natural_gradient(
    gaussian: FullGaussian, samples: Tensor, parametrisation: Parametrisation
) -> None:
    """Against the Fisher information as the KL's Hessian by μ and the lower half of Σ."""
    bound = 1e-10
    stepped = LocalDescent(parametrisation, natural_gradient(bound))(gaussian, Moments.of(samples))
    torch.testing.assert_close(
        kl_divergence(gaussian, stepped),
        torch.full((INSTANCES,), bound).double(),
        rtol=1e-3,
        atol=0,
    )
    lower = torch.tril_indices(DIMENSIONS, DIMENSIONS)

    def distribution(parameters: Tensor) -> MultivariateNormal:
        half = torch.zeros(DIMENSIONS, DIMENSIONS, dtype=torch.float64)
        half = half.index_put((lower[0], lower[1]), parameters[DIMENSIONS:])
        covariance = half + half.tril(-1).mT
        return MultivariateNormal(parameters[:DIMENSIONS], covariance)

    for i in range(INSTANCES):
        flat = gaussian.covariance[i][lower[0], lower[1]]
        parameters = torch.cat((gaussian.mean[i], flat)).requires_grad_()
        here = distribution(parameters.detach())
        fisher = hessian(
            lambda moved, here=here: torch.distributions.kl_divergence(here, distribution(moved)),
            parameters,
        )
        loss = -distribution(parameters).log_prob(samples[i]).mean()
        (gradient,) = torch.autograd.grad(loss, parameters)
        natural = torch.linalg.solve(fisher, gradient)
        expected = -((2 * bound / (gradient @ natural)).sqrt()) * natural
        after = torch.cat((stepped.mean[i], stepped.covariance[i][lower[0], lower[1]]))
        torch.testing.assert_close(after - parameters.detach(), expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
def test_gauss_newton(
    gaussian: FullGaussian, samples: Tensor, parametrisation: Parametrisation
) -> None:
    """Against least squares with autograd's Hessian, by all entries of a symmetric X."""
    rate = 0.05
    stepped = LocalDescent(parametrisation, gauss_newton(rate))(gaussian, Moments.of(samples))
    torch.testing.assert_close(
        stepped.mean, gaussian.mean + rate / (1 + 1e-7) * (samples.mean(1) - gaussian.mean)
    )
    identity = torch.eye(DIMENSIONS, dtype=torch.float64)
    for i in range(INSTANCES):
        factor, mean, own = gaussian.scale_tril[i], gaussian.mean[i], samples[i : i + 1]

        def grown(x: Tensor, factor: Tensor = factor) -> Tensor:
            x = 0.5 * (x + x.mT)
            root = identity + x if parametrisation is SQUARE_ROOT else torch.linalg.matrix_exp(x)
            return factor @ root @ root.mT @ factor.mT

        def local_nll(
            flat: Tensor,
            grown: Callable[[Tensor], Tensor] = grown,
            mean: Tensor = mean,
            own: Tensor = own,
        ) -> Tensor:
            covariance = grown(flat.view(DIMENSIONS, DIMENSIONS))
            return nll(mean[None], covariance[None], own)

        zero = torch.zeros(DIMENSIONS**2, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(local_nll(zero), zero)
        curvature = hessian(local_nll, zero.detach())
        ridge = 1e-7**0.5 * torch.eye(DIMENSIONS**2, dtype=torch.float64)
        rows = torch.cat((curvature, ridge))
        right = torch.cat((gradient, torch.zeros_like(gradient)))
        x = -rate * torch.linalg.lstsq(rows, right).solution.view(DIMENSIONS, DIMENSIONS)
        # What grows is taken to second order, up to a sixth of the step's cube.
        bound = 2 * float(torch.linalg.matrix_norm(x, 2)) ** 3
        torch.testing.assert_close(stepped.covariance[i], grown(x), rtol=1e-6 + bound, atol=bound)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
def test_tractable_natural_gradient(
    gaussian: FullGaussian, samples: Tensor, parametrisation: Parametrisation
) -> None:
    """The natural gradient by μ is μ - y, by Σ it is Σ less the second moment."""
    rate = 1e-5
    stepped = LocalDescent(parametrisation, tractable(rate))(gaussian, Moments.of(samples))
    towards = samples.mean(1) - gaussian.mean
    torch.testing.assert_close(stepped.mean, gaussian.mean + rate * towards)
    change = (stepped.covariance - gaussian.covariance) / rate
    expected = second_moment(gaussian.mean, samples) - gaussian.covariance
    torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-3)


def test_tractable_natural_gradient_is_trustable_s_of_one_sample(
    gaussian: FullGaussian, samples: Tensor
) -> None:
    one = samples[:, :1]
    stepped = LocalDescent(LOGARITHM, tractable(0.05))(gaussian, Moments.of(one))
    library = natural_gradient_step(gaussian, one.squeeze(1), 0.05)
    torch.testing.assert_close(stepped.mean, library.mean)
    # Only shrinkage differs, which the library takes to second order: e^-x by x³/6.
    torch.testing.assert_close(stepped.covariance, library.covariance, rtol=1e-5, atol=1e-5)


def test_a_huge_step_stays_definite(samples: Tensor) -> None:
    factor = 1e-3 * torch.eye(DIMENSIONS, dtype=torch.float64).expand(INSTANCES, -1, -1)
    gaussian = FullGaussian(torch.full((INSTANCES, DIMENSIONS), 9.0).double(), factor)
    for parametrisation in PARAMETRISATIONS.values():
        stepped = LocalDescent(parametrisation, tractable(0.05))(gaussian, Moments.of(samples))
        assert (torch.linalg.eigvalsh(stepped.covariance) > 0).all()


@pytest.mark.parametrize("metric", ["frobenius", "w2", "kl"])
def test_an_iteration_stays_within_the_trust_region(
    gaussian: FullGaussian, samples: Tensor, metric: str
) -> None:
    region = TrustRegion(metric, 1e-4, 1e-6)  # type: ignore[arg-type]
    minibatches = [Moments.of(samples + 9), Moments.of(samples + 10)]
    for step in (GradientDescent(LOGARITHM, 0.001), LocalDescent(SQUARE_ROOT, tractable(0.05))):
        fit = Fit(gaussian, step, region)
        fit.run(minibatches)
        on_mean = torch.full((INSTANCES,), 1e-4, dtype=torch.float64)
        torch.testing.assert_close(region.mean_distance(fit.gaussian, gaussian), on_mean)
        on_covariance = torch.full((INSTANCES,), 1e-6, dtype=torch.float64)
        distance = region.covariance_distance(fit.gaussian, gaussian)
        torch.testing.assert_close(distance, on_covariance, rtol=1e-5, atol=0)
        assert not fit.diverged.any()


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS)
def test_one_that_diverges_stays_and_harms_no_other(
    gaussian: FullGaussian, samples: Tensor, parametrisation: Parametrisation
) -> None:
    broken = samples.clone()
    broken[1] = torch.inf
    region = TrustRegion("w2", 1.0, 1.0)
    for step in (
        GradientDescent(parametrisation, 0.05),
        Adam(gaussian, parametrisation, 0.05),
        LocalDescent(parametrisation, tractable(0.05)),
    ):
        fit = Fit(gaussian, step, region)
        fit.run([Moments.of(broken), Moments.of(samples)])
        assert fit.diverged.tolist() == [False, True, False, False]
        torch.testing.assert_close(fit.gaussian[1].mean, gaussian[1].mean)
        assert torch.isfinite(fit.gaussian.scale_tril).all()
        assert ((fit.gaussian.mean - gaussian.mean).abs().amax(1) > 0).tolist() == [
            True,
            False,
            True,
            True,
        ]


def test_univariate_cases() -> None:
    cases = univariate_cases(2)
    variances = {
        name: (float(case.initial.variance[0]), float(case.truth.variance[1]))
        for name, case in cases.items()
    }
    assert variances == {
        "I": (1.0, pytest.approx(0.01)),
        "II": (1.0, 1.0),
        "III": (pytest.approx(0.01), 1.0),
    }
    assert (cases["I"].initial.mean == 0).all()
    assert (cases["I"].truth.mean == 5).all()


def test_multivariate_cases() -> None:
    cases = multivariate_cases(20, seed=0)

    def spectrum(gaussian: FullGaussian) -> np.ndarray:
        return torch.linalg.eigvalsh(gaussian.covariance).numpy()

    for case in cases.values():
        near_one = spectrum(case.truth)
        assert (near_one.min(), near_one.max()) == (
            pytest.approx(0.5, abs=0.1),
            pytest.approx(1.5, abs=0.1),
        )
        assert case.truth.mean.abs().max() <= 5
    small, large, mixed = (spectrum(cases[name].initial) for name in ("II", "III", "IV"))
    assert small.min() == pytest.approx(0.01, abs=1e-3)
    assert small.max() < 1
    assert 20 < large.min() < large.max() <= 100
    assert (mixed > 20).mean() == pytest.approx(0.5, abs=0.1)
    assert ((mixed > 20) | (mixed < 1)).all()
    # Rotated: no direction is an eigenvector.
    assert cases["II"].initial.covariance[0].tril(-1).abs().max() > 1e-3
    again = multivariate_cases(20, seed=0)["IV"].initial
    torch.testing.assert_close(again.covariance, cases["IV"].initial.covariance, rtol=0, atol=0)


def test_draws_have_the_moments_of_the_truth() -> None:
    truth = multivariate_cases(1, seed=0)["I"].truth
    moments = Moments.of(draw(truth, 200_000, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(moments.mean, truth.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(moments.covariance, truth.covariance, rtol=0, atol=0.02)


@pytest.fixture(scope="module")
def univariate() -> Mapping[str, Mapping[Key, Trace]]:
    cases = univariate_cases(2)
    chosen = {name: cases[name] for name in ("II", "III")}
    return run_study(chosen, UNIVARIATE, iterations=40, seed=0, title="")


def test_who_converges_on_the_baseline(univariate: Mapping[str, Mapping[Key, Trace]]) -> None:
    """The paper: those that restrict the gradient, or decouple the mean's, converge."""
    for (method, _), trace in univariate["II"].items():
        if method == "Adam":
            assert (trace.kl[-1] < 0.5).all()
        elif method == "SGD":
            assert (trace.kl[-1] < 0.1).all()
        else:
            assert (trace.iterations_to(0.01) < 35).all(), method


def test_who_converges_from_a_small_variance(
    univariate: Mapping[str, Mapping[Key, Trace]],
) -> None:
    """The paper: SGD does not, tractable natural gradients do from extremes, Trustable without."""
    for parametrisation in PARAMETRISATIONS:
        traces = {
            method: trace
            for (method, its), trace in univariate["III"].items()
            if its == parametrisation
        }
        assert (traces["SGD"].kl[-1] > 5).all()
        for method in ("tractable NG", "Trustable W2", "Trustable KL", "Trustable Frobenius"):
            assert (traces[method].kl[-1] < 0.01).all()
        assert traces["tractable NG"].std.max() > 5
        assert traces["Trustable W2"].std.max() < 5


def test_table_and_figures(univariate: Mapping[str, Mapping[Key, Trace]], tmp_path: Path) -> None:
    kl = torch.tensor([[9.0, 9.0, 9.0], [1.0, 0.05, torch.inf], [0.05, 0.005, torch.inf]])
    trace = Trace(kl, kl, kl)
    lines = table({("SGD", "square root"): trace}).splitlines()
    assert lines[0] == "| method | KL@1 | KL@2 | to 0.1 | share | to 0.01 | share |"
    assert lines[2] == (
        "| SGD, square root | 1 (1 of 3 diverged) | 0.05 (1 of 3 diverged) | 1 | 67% | 2 | 33% |"
    )
    lost = Trace(kl[:, [2, 2]], kl, kl)
    assert "| 2 of 2 diverged |  | 0% |" in table({("SGD", "square root"): lost})
    assert figures("1-D I", {("SGD", "square root"): trace}) == {
        "1-d_i_sgd_square_root_kl": pytest.approx(0.05),
        "1-d_i_sgd_square_root_converged": pytest.approx(1 / 3),
    }
    draw_kl(tmp_path / "kl.png", univariate, (0.1,))
    case: Case = univariate_cases(2)["III"]
    draw_trajectories(tmp_path / "trajectories.png", case, univariate["III"])
    for name in ("kl", "trajectories"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
