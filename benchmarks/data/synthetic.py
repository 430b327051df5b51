"""The papers' synthetic sets, with the distribution that each target was drawn from.

β-NLL (Seitzer et al. 2022): ``sine`` and ``detlefsen``, trained and tested on draws of their own.
Trustable (A.2 of its paper): ``trustable_sine``, ``trustable_detlefsen``, ``nn_constant`` and
``spiral_k*``, one draw on an even grid, 70 % of it to train on. Where the noise of Trustable's
released code differs from its paper's, ``*_code`` has the code's.

Shapes: N samples, D target dimensions, ``...`` any batch dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.processes import Process, Samples, detlefsen, nn_constant, sine, spiral
from benchmarks.data.table import Array, shuffle_split
from dynlearn.distributions.gaussian import FullGaussian, kl_divergence, wasserstein
from dynlearn.distributions.mixture import Distribution
from dynlearn.errors import NotFound, nearest

# The scale of Trustable's normalised Wasserstein distance.
_WASSERSTEIN_SCALE = 0.17


@dataclass(frozen=True)
class Problem:
    """A process, and samples of it to train on and to test on.

    Attributes:
        grid: inputs evenly over the range of the samples' [N], to draw fits on.
    """

    process: Process
    grid: Array
    train: Samples
    test: Samples

    def tuning(self) -> tuple[Samples, Samples]:
        """Return 70 % of the training part to tune on and the rest to select by."""
        train, validation = shuffle_split(len(self.train), 0.3, seed=0)
        return self.train[train], self.train[validation]


def _paper_std(x: Array) -> Array:
    return 0.3 * np.sqrt(1 + x**2)


def _code_std(x: Array) -> Array:
    return 1 + x


def _two_draws(
    process: Process, grid: Array, seed: int, inputs: Callable[[np.random.Generator], Array]
) -> Problem:
    generators = np.random.default_rng(2 * seed), np.random.default_rng(2 * seed + 1)
    train, test = (process.draw(inputs(generator), generator) for generator in generators)
    return Problem(process, grid, train, test)


def _one_draw(process: Process, grid: Array, seed: int) -> Problem:
    samples = process.draw(grid, np.random.default_rng(seed))
    train, test = shuffle_split(len(samples), 0.3, seed=0)
    return Problem(process, grid, samples[train], samples[test])


def _beta_nll_sine(seed: int) -> Problem:
    grid = np.linspace(0, 12, 1000)
    return _two_draws(sine(0.01), grid, seed, lambda _: grid)


def _beta_nll_detlefsen(seed: int) -> Problem:
    grid = np.linspace(0, 10, 1000)
    return _two_draws(
        detlefsen(_paper_std), grid, seed, lambda generator: generator.uniform(0, 10, 1000)
    )


# Trustable's are drawn once on an even grid.
_TRUSTABLE = {
    "trustable_sine": (sine(0.01), np.linspace(0, 12, 2000)),
    "trustable_sine_code": (sine(0.1), np.linspace(0, 12, 2000)),
    "trustable_detlefsen": (detlefsen(_paper_std), np.linspace(0, 10, 2000)),
    "trustable_detlefsen_code": (detlefsen(_code_std), np.linspace(0, 10, 2000)),
    "nn_constant": (nn_constant(), np.linspace(-1, 1, 2000)),
    "spiral_k0": (spiral(0), np.linspace(0, 20, 5000)),
    "spiral_k2": (spiral(2), np.linspace(0, 20, 5000)),
    "spiral_k5": (spiral(5), np.linspace(0, 20, 5000)),
}
_PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "sine": _beta_nll_sine,
    "detlefsen": _beta_nll_detlefsen,
    **{name: partial(_one_draw, *parts) for name, parts in _TRUSTABLE.items()},
}
NAMES = tuple(_PROBLEMS)


def load(name: str, seed: int = 0) -> Problem:
    """Return a problem; ``seed`` decides the noise, never which samples are tested on.

    Raises:
        NotFound: no problem has this name.
    """
    if name not in _PROBLEMS:
        raise NotFound(f"expected a synthetic set, got {name!r}; {nearest(name, NAMES)}")
    return _PROBLEMS[name](seed)


def score(prediction: Distribution, samples: Samples) -> dict[str, Tensor]:
    """Judge predictions [..., N, D] in original units; every figure is a mean over the samples.

    Returns:
        Tensors [...] in float64, not finite where a prediction is not:

        - ``nll``: in nats, summed over dimensions; a Student-t's where the prediction is one.
        - ``rmse``, ``rmse_to_mean``: from the targets and from the true mean, root of the mean
          over samples and dimensions.
        - ``kl``: KL(truth ‖ prediction) in nats.
        - ``w2``, ``w2_covariance``: the squared 2-Wasserstein distance to the truth, and the
          covariances' part of it.
        - ``w2_normalised``: 1 - exp(-√w2_covariance / 0.17).
    """
    prediction = prediction.apply(lambda tensor: tensor.detach().cpu().double())
    targets, truth = torch.from_numpy(samples.targets), samples.truth
    gaussian = _as_full(prediction)
    to_mean = gaussian.mean - truth.mean
    covariances = _covariance_distance(gaussian, truth)
    return {
        "nll": -prediction.log_prob(targets).mean(-1),
        "rmse": (gaussian.mean - targets).square().mean((-2, -1)).sqrt(),
        "rmse_to_mean": to_mean.square().mean((-2, -1)).sqrt(),
        "kl": kl_divergence(truth, gaussian).mean(-1),
        "w2": (to_mean.square().sum(-1) + covariances).mean(-1),
        "w2_covariance": covariances.mean(-1),
        "w2_normalised": 1 - (-covariances.sqrt() / _WASSERSTEIN_SCALE).exp().mean(-1),
    }


def _as_full(prediction: Distribution) -> FullGaussian:
    if isinstance(prediction, FullGaussian):
        return prediction
    return FullGaussian(prediction.mean, torch.diag_embed(prediction.variance.sqrt()))


def _covariance_distance(p: FullGaussian, q: FullGaussian) -> Tensor:
    # The singular values that the distance needs are refused to a matrix that is not finite.
    is_finite = p.scale_tril.isfinite().all(-1).all(-1)
    factor = p.scale_tril.where(is_finite[..., None, None], 1.0)
    mean = torch.zeros_like(q.mean)
    distance = wasserstein(FullGaussian(mean, factor), FullGaussian(mean, q.scale_tril))
    return distance.where(is_finite, math.nan)
