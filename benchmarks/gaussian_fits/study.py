"""All methods on the same minibatches: their settings, and what becomes of each.

Settings are those of the Trustable paper's study: minibatches of 128 samples, eight to an
iteration, a rate of 0.05; the trust regions' old Gaussians change once an iteration.

Shapes: N instances, T iterations, D dimensions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.gaussian_fits.cases import Case, Moments, draw
from benchmarks.gaussian_fits.optimizers import (
    Adam,
    Fit,
    GradientDescent,
    LocalDescent,
    gauss_newton,
    natural_gradient,
    tractable,
)
from benchmarks.gaussian_fits.parametrisations import PARAMETRISATIONS
from dynlearn.config.choices import TrustRegionMetric
from dynlearn.distributions.gaussian import FullGaussian, concatenate, kl_divergence
from dynlearn.trust_region import TrustRegion

_MINIBATCHES = 8
_SAMPLES = 128
_RATE = 0.05
METRICS: dict[str, TrustRegionMetric] = {"Frobenius": "frobenius", "W2": "w2", "KL": "kl"}

# Of a method and its parametrisation.
Key = tuple[str, str]


@dataclass(frozen=True)
class Bounds:
    """The bounds of one number of dimensions; TRPL's and Trustable's on the mean and covariance."""

    natural_gradient: float
    trpl: tuple[float, float]
    trustable: tuple[float, float]


UNIVARIATE = Bounds(natural_gradient=0.001, trpl=(0.1, 0.001), trustable=(0.1, 1.0))
MULTIVARIATE = Bounds(natural_gradient=0.1, trpl=(1.0, 1.0), trustable=(1.0, 1.0))


@dataclass(frozen=True)
class Trace:
    """What became of a fit in every instance, at the start and after every iteration.

    Attributes:
        kl: KL(truth ‖ fit), infinite where the fit has diverged, [T + 1, N].
        mean: of the first dimension, [T + 1, N].
        std: of the first dimension, [T + 1, N].
    """

    kl: Tensor
    mean: Tensor
    std: Tensor

    @property
    def median_kl(self) -> Tensor:
        """The median over instances, the lower one of two, [T + 1]."""
        return self.kl.median(1).values

    def iterations_to(self, level: float) -> Tensor:
        """Return after how many iterations the KL is first below ``level``, or infinity, [N]."""
        below = self.kl < level
        first = below.to(torch.int8).argmax(0).double()
        return torch.where(below.any(0), first, math.inf)


def make_fits(initial: FullGaussian, bounds: Bounds) -> dict[Key, Fit]:
    """Return a fit for each method and parametrisation, all beginning at ``initial`` [N]."""
    fits: dict[Key, Fit] = {}
    for name, numbers in PARAMETRISATIONS.items():
        descent = GradientDescent(numbers, _RATE)
        natural = LocalDescent(numbers, tractable(_RATE))
        fits |= {
            ("SGD", name): Fit(initial, descent),
            ("Adam", name): Fit(initial, Adam(initial, numbers, _RATE)),
            ("Pitfalls β=0.5", name): Fit(initial, GradientDescent(numbers, _RATE, beta=0.5)),
            ("Pitfalls β=1", name): Fit(initial, GradientDescent(numbers, _RATE, beta=1.0)),
            ("natural gradient", name): Fit(
                initial, LocalDescent(numbers, natural_gradient(bounds.natural_gradient))
            ),
            ("Gauss-Newton", name): Fit(initial, LocalDescent(numbers, gauss_newton(_RATE))),
            ("tractable NG", name): Fit(initial, natural),
        }
        for label, metric in METRICS.items():
            region = TrustRegion(metric, *bounds.trpl)
            fits[f"TRPL {label}", name] = Fit(initial, descent, region)
        for label, metric in METRICS.items():
            region = TrustRegion(metric, *bounds.trustable)
            fits[f"Trustable {label}", name] = Fit(initial, natural, region)
    return fits


def run_study(
    cases: Mapping[str, Case], bounds: Bounds, iterations: int, seed: int, title: str
) -> dict[str, dict[Key, Trace]]:
    """Return the traces of all fits, by case. All cases have equally many instances."""
    truth = concatenate([case.truth for case in cases.values()], 0)
    initial = concatenate([case.initial for case in cases.values()], 0)
    fits = make_fits(initial, bounds)
    records = {key: [_record(fit, truth)] for key, fit in fits.items()}
    generator = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(iterations), title, disable=None):
        minibatches = [Moments.of(draw(truth, _SAMPLES, generator)) for _ in range(_MINIBATCHES)]
        for key, fit in fits.items():
            fit.run(minibatches)
            records[key].append(_record(fit, truth))
    shape = iterations + 1, 3, len(cases), -1
    whole = {key: torch.stack(record).view(shape) for key, record in records.items()}
    return {
        name: {key: Trace(*values[:, :, number].unbind(1)) for key, values in whole.items()}
        for number, name in enumerate(cases)
    }


def _record(fit: Fit, truth: FullGaussian) -> Tensor:
    kl = torch.where(
        fit.diverged, math.inf, kl_divergence(truth, fit.gaussian).nan_to_num(math.inf)
    )
    return torch.stack((kl, fit.gaussian.mean[:, 0], fit.gaussian.std[:, 0]))
