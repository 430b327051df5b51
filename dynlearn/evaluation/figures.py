"""The figures of an evaluation, drawn without a display and without global state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dynlearn.evaluation.measures import CURVE_LEVELS, Evaluation
from dynlearn.task import Columns

REAL, MODEL, OTHER = "#222222", "#1f77b4", "#d62728"
_DPI = 110
_MAX_PANELS = 6


def draw_figures(
    evaluation: Evaluation,
    history: list[dict[str, float]],
    columns: Columns,
    folder: Path,
) -> list[str]:
    """Draw every figure that the evaluation holds and return their file names.

    Args:
        evaluation: what was measured.
        history: NLL and RMSE at every validation of the training run; empty where unknown.
        columns: the observation columns; those of their focus are shown first.
        folder: an existing folder to write into.
    """
    figures = {"calibration.png": _calibration(evaluation)}
    if evaluation.rollouts is not None:
        figures["open_loop.png"] = _open_loop(evaluation, columns)
        figures["error_by_horizon.png"] = _error_by_horizon(evaluation)
    else:
        figures["one_step.png"] = _one_step(evaluation)
    if history:
        figures["training.png"] = _training(history)
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    return list(figures)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI)


def _calibration(evaluation: Evaluation) -> Figure:
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    levels = np.array([0.0, *CURVE_LEVELS, 1.0])
    axes.plot([0, 1], [0, 1], color=REAL, linestyle="--", label="ideal")

    def draw(shares: np.ndarray, **style: Any) -> None:
        axes.plot(levels, np.concatenate([[0], shares, [1]]), **style)

    calibration = evaluation.calibration
    if calibration.shape[1] > 1:
        for column in calibration.T:
            draw(column, color=MODEL, alpha=0.25, linewidth=0.8)
        draw(
            evaluation.joint_calibration,
            color=OTHER,
            marker="s",
            markersize=3,
            label="ellipsoids, all columns at once",
        )
    draw(calibration.mean(1), color=MODEL, marker="o", markersize=3, label="intervals, mean")
    axes.set(
        xlabel="probability of the predicted interval or ellipsoid",
        ylabel="share of real values inside",
        title="Calibration of one-step predictions",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    axes.legend(loc="lower right")
    return figure


def _open_loop(evaluation: Evaluation, columns: Columns) -> Figure:
    labels, focus = columns
    rollouts = evaluation.rollouts
    assert rollouts is not None
    size = rollouts.start.shape[1]
    shown = (focus + tuple(c for c in range(size) if c not in focus))[:_MAX_PANELS]
    window = _liveliest(rollouts.real, focus or tuple(range(size)))
    figure, panels = panel_grid(len(shown))
    steps = np.arange(rollouts.real.shape[1] + 1)
    for axes, column in zip(panels, shown, strict=True):
        start = rollouts.start[window, column]

        def series(values: np.ndarray, column: int = column, start: float = start) -> np.ndarray:
            return np.concatenate([[start], values[window, :, column]])

        axes.fill_between(
            steps,
            series(rollouts.low),
            series(rollouts.high),
            color=MODEL,
            alpha=0.25,
            linewidth=0,
            label="imagined, 5% to 95%",
        )
        axes.plot(steps, series(rollouts.mean), color=MODEL, label="imagined, mean")
        axes.plot(steps, series(rollouts.real), color=REAL, linestyle="--", label="real")
        axes.set(title=labels[column], xlabel="step")
    panels[0].legend(fontsize="small")
    figure.suptitle("Open-loop rollout of a held-out episode under its real actions")
    return figure


def _error_by_horizon(evaluation: Evaluation) -> Figure:
    metrics = evaluation.metrics
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, len(metrics.open_loop_rmse) + 1)
    axes.plot(steps, metrics.open_loop_rmse, color=MODEL, marker="o", markersize=3, label="model")
    unmoved = metrics.open_loop_rmse_of_no_change
    axes.plot(steps, unmoved, color=OTHER, linestyle="--", marker=".", label="no change")
    focus = ", ".join(metrics.focus_columns[:3]) + (", ..." * (len(metrics.focus_columns) > 3))
    axes.set(xlabel="steps ahead", ylabel="RMSE (original units)", title=f"Open loop: {focus}")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def _one_step(evaluation: Evaluation) -> Figure:
    real, mean, std = evaluation.one_step
    names = evaluation.metrics.columns[:_MAX_PANELS]
    figure, panels = panel_grid(len(names))
    steps = np.arange(1, len(real) + 1)
    for column, (axes, name) in enumerate(zip(panels, names, strict=True)):
        middle, band = mean[:, column], 1.645 * std[:, column]
        axes.fill_between(
            steps,
            middle - band,
            middle + band,
            color=MODEL,
            alpha=0.25,
            linewidth=0,
            label="predicted, 90%",
        )
        axes.plot(steps, middle, color=MODEL, label="predicted, mean")
        axes.plot(steps, real[:, column], color=REAL, linestyle="--", label="real")
        axes.set(title=name, xlabel="step")
    panels[0].legend(fontsize="small")
    figure.suptitle("One-step predictions along a held-out episode")
    return figure


def _training(history: list[dict[str, float]]) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    updates = [entry["update"] for entry in history]
    # A single held-out transition can cost a sure member thousands of nats; where none does, a
    # linear scale has more to read off.
    highest = max(entry[f"{part}_nll"] for entry in history for part in ("train", "validation"))
    scales = {"nll": "symlog" if highest > 100 else "linear", "rmse": "log"}
    for axes, measure in zip(figure.subplots(1, 2), scales, strict=True):
        for part, color in (("train", OTHER), ("validation", MODEL)):
            values = [entry[f"{part}_{measure}"] for entry in history]
            axes.plot(updates, values, color=color, marker=".", label=part)
        axes.set(
            xlabel="updates",
            ylabel="NLL (nats)" if measure == "nll" else "RMSE (original units)",
            yscale=scales[measure],
        )
        axes.legend()
    figure.suptitle("Training, mean over members")
    return figure


def panel_grid(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``count`` panels over steps, at most three in a row, and the panels."""
    across = 2 if count == 4 else min(count, 3)
    down = -(-count // across)
    figure = Figure(figsize=(max(4 * across, 6.5), 2.8 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).flatten()
    for axes in grid[:count]:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for unused in grid[count:]:
        unused.set_axis_off()
    return figure, list(grid[:count])


def _liveliest(real: np.ndarray, columns: tuple[int, ...]) -> int:
    """Return the window in which the columns move most, so that there is something to see."""
    moved = np.abs(np.diff(real[:, :, list(columns)], axis=1)).sum(axis=(1, 2))
    return int(np.argsort(moved)[int(0.98 * (len(moved) - 1))])
