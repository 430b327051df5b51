"""Free Gaussians on their way to the truth, like Figs. 3 and 8 of the Trustable paper."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from benchmarks.gaussian_fits.cases import Case
from benchmarks.gaussian_fits.parametrisations import PARAMETRISATIONS
from benchmarks.gaussian_fits.study import Key, Trace
from dynlearn.evaluation.figures import save_figure

# The colours of Okabe and Ito; one for a method, whose variants differ in their strokes.
_COLORS = {
    "SGD": "#000000",
    "Adam": "#999999",
    "Pitfalls": "#F0E442",
    "natural": "#56B4E9",
    "Gauss-Newton": "#CC79A7",
    "tractable": "#009E73",
    "TRPL": "#E69F00",
    "Trustable": "#0072B2",
}
_STROKES = {"Frobenius": ":", "KL": "--", "β=0.5": "--"}
_PARAMETRISATION_STYLES: dict[str, tuple[str, Literal["-", "--"]]] = {
    "square root": ("#D55E00", "-"),
    "logarithm": ("#0072B2", "--"),
}
_TRUTH = "#009E73"
_HIGHEST_KL = 1e5
_ACROSS = 4


def draw_kl(
    path: Path, traces: Mapping[str, Mapping[Key, Trace]], levels: tuple[float, ...]
) -> None:
    """Draw each method's KL to the truth, the median over instances.

    A curve ends in a cross where it diverges, and the panel names those that do.

    Args:
        path: the PNG to write.
        traces: by case, a column each; the parametrisations are the rows.
        levels: of the KL that are drawn as lines.
    """
    figure = Figure(figsize=(3.3 * len(traces) + 2.4, 6.6), layout="constrained")
    grid = figure.subplots(len(PARAMETRISATIONS), len(traces), sharex=True, sharey=True)
    for row, parametrisation in zip(grid, PARAMETRISATIONS, strict=True):
        for axes, (case, fits) in zip(row, traces.items(), strict=True):
            for level in levels:
                axes.axhline(level, color="#bbbbbb", linewidth=0.8, zorder=0)
            medians = {
                method: trace.median_kl.numpy()[1:]
                for (method, its), trace in fits.items()
                if its == parametrisation
            }
            _draw_medians(axes, medians)
            axes.set(title=f"{case}, {parametrisation}", xscale="log", yscale="log")
        row[0].set_ylabel("KL(truth ‖ fit), nats")
    lowest = min(
        float(trace.median_kl.min()) for fits in traces.values() for trace in fits.values()
    )
    grid[0, 0].set_ylim(lowest / 2, _HIGHEST_KL)
    for axes in grid[-1]:
        axes.set_xlabel("iterations")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    save_figure(figure, path)


def _draw_medians(axes: Axes, medians: Mapping[str, np.ndarray]) -> None:
    lost = []
    for method, median in medians.items():
        shown = median[np.isfinite(median)]
        iterations = np.arange(1, len(shown) + 1)
        color, stroke = _style(method)
        axes.plot(iterations, shown, stroke, color=color, linewidth=1.3, label=method)
        if len(shown) < len(median):
            lost.append(method)
            axes.plot(iterations[-1:], shown[-1:], "x", color=color)
    if lost:
        text = "\n".join(["diverged:", *lost])
        place = axes.transAxes
        axes.text(0.97, 0.97, text, transform=place, ha="right", va="top", fontsize="small")


def draw_trajectories(path: Path, case: Case, traces: Mapping[Key, Trace]) -> None:
    """Draw the first instance's way in the plane of mean and standard deviation, by method.

    Args:
        path: the PNG to write.
        case: of one dimension.
        traces: both parametrisations of a method share a panel.
    """
    methods = list(dict.fromkeys(method for method, _ in traces))
    down = -(-(len(methods) + 1) // _ACROSS)
    figure = Figure(figsize=(3.1 * _ACROSS, 2.5 * down), layout="constrained")
    grid = figure.subplots(down, _ACROSS).flatten()
    for axes, method in zip(grid, methods, strict=False):
        axes.axvline(float(case.truth.mean[0]), color=_TRUTH, linewidth=0.8)
        axes.axhline(float(case.truth.std[0]), color=_TRUTH, linewidth=0.8)
        for parametrisation, (color, stroke) in _PARAMETRISATION_STYLES.items():
            trace = traces[method, parametrisation]
            mean, std = trace.mean[:, 0].numpy(), trace.std[:, 0].numpy()
            axes.plot(mean, std, stroke, color=color, linewidth=1.1, marker=".", markersize=3)
            axes.plot(mean[0], std[0], "o", color=color, markersize=5)
            axes.plot(mean[-1], std[-1], "x", color=color, markersize=7)
        axes.set(title=method, yscale="log", xlabel="μ", ylabel="σ")
        low, high = axes.get_ylim()
        # Room for a power of ten or two, which alone have labels.
        axes.set_ylim(low / 4, high * 4)
        axes.yaxis.set_minor_formatter(NullFormatter())
    for unused in grid[len(methods) :]:
        unused.set_axis_off()
    handles = [
        *(
            Line2D([], [], color=color, linestyle=stroke, label=name)
            for name, (color, stroke) in _PARAMETRISATION_STYLES.items()
        ),
        Line2D([], [], color=_TRUTH, label="truth"),
        Line2D([], [], color="#444444", marker="o", linestyle="", label="start"),
        Line2D([], [], color="#444444", marker="x", linestyle="", label="end"),
    ]
    grid[len(methods)].legend(handles=handles, loc="center")
    save_figure(figure, path)


def _style(method: str) -> tuple[str, str]:
    kind, _, variant = method.partition(" ")
    return _COLORS[kind], _STROKES.get(variant, "-")
