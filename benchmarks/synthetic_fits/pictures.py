"""The figures of one synthetic set."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.data.synthetic import Problem
from benchmarks.data.table import Array
from benchmarks.fits import (
    draw_curves,
    draw_fits,
    draw_residuals,
    draw_sampling,
    draw_sampling_histograms,
    sampling_probabilities,
    seed_band,
)
from benchmarks.synthetic_fits.job import Outcome
from benchmarks.synthetic_fits.recipes import OBJECTIVES

# Of plain NLL, whose probabilities are shown as histograms, these many moments.
_MOMENTS = 5


def draw_set(
    folder: Path,
    problem: Problem,
    outcomes: Mapping[str, Outcome],
    oracle: Mapping[str, float],
) -> None:
    """Draw fits, training curves, residuals and, of one target, effective sampling.

    Args:
        folder: where the PNGs go.
        problem: the data.
        outcomes: by objective.
        oracle: what the true distribution scores on the test part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(outcomes.values()))
    dimensions = problem.test.targets.shape[1]
    names = ("x", "y") if dimensions == 1 else ("t", "y₁", "y₂", "y₃")
    fits = {objective: outcome.fit for objective, outcome in outcomes.items()}
    truth = problem.process.truth(first.grid)
    draw_fits(folder / "fits.png", first.grid, fits, problem.test, truth, names)
    for metric, title in (("nll", "test NLL (nats)"), ("rmse", "test RMSE")):
        curves = {objective: outcome.curves[metric] for objective, outcome in outcomes.items()}
        draw_curves(
            folder / f"{metric}.png",
            first.updates,
            curves,
            "updates",
            title,
            {"oracle": oracle[metric]},
            is_log=(False, metric == "rmse"),
            y_limits=_limits(curves.values(), oracle[metric]) if metric == "nll" else None,
        )
    residuals = {objective: outcome.residuals for objective, outcome in outcomes.items()}
    draw_residuals(folder / "residuals.png", residuals, "units of y")
    if dimensions == 1:
        _draw_effective_sampling(folder, problem, outcomes)


def _draw_effective_sampling(
    folder: Path, problem: Problem, outcomes: Mapping[str, Outcome]
) -> None:
    """Draw how often each training point counts in effect, of losses with a power of σ²."""
    betas = {
        objective: float(str(OBJECTIVES[objective].get("beta", 0.0)))
        for objective in outcomes
        if OBJECTIVES[objective]["objective"] in ("nll", "beta_nll")
    }
    probabilities = {
        objective: sampling_probabilities(outcomes[objective].variances, beta)
        for objective, beta in betas.items()
    }
    if not betas:
        return
    inputs, updates = problem.train.inputs[:, 0], next(iter(outcomes.values())).updates
    draw_sampling(folder / "sampling.png", inputs, updates, probabilities)
    plain = [objective for objective, beta in betas.items() if beta == 0]
    if plain:
        shown = np.geomspace(1, len(updates), _MOMENTS).round().astype(int) - 1
        draw_sampling_histograms(
            folder / "sampling_histograms.png", updates[shown], probabilities[plain[0]][shown]
        )


def _limits(curves: Iterable[Array], oracle: float) -> tuple[float, float]:
    """Return limits from just below the oracle to the highest median once half way through."""
    halves = [seed_band(values[:, values.shape[1] // 2 :])[1] for values in curves]
    settled = np.concatenate(halves)
    top = settled[np.isfinite(settled)].max(initial=oracle + 1)
    margin = 0.15 * (top - oracle)
    return oracle - margin, top + 2 * margin
