"""Figures like the papers': fits over data, curves over seeds, residuals, sampling probabilities.

Colours are those of Okabe and Ito, and the objectives of one figure also differ in their strokes.

Shapes: N samples, D target dimensions, K seeds, T points of a curve.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from benchmarks.data.table import Array, Table
from dynlearn.distributions.mixture import Distribution
from dynlearn.evaluation.figures import save_figure

Color = str | tuple[float, float, float, float]

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STROKES = ("-", "--", "-.", ":")
_DATA, _TRUTH, _FIT = "#777777", "#000000", _COLORS[0]
_SEQUENTIAL = "cividis"
_MOST_ACROSS = 4
# Points of a scatter beyond this many only thicken it.
_MOST_POINTS = 1000
# The share of the seeds within the band of a curve, as in Trustable's figures.
_BAND = 0.85


def draw_fits(
    path: Path,
    inputs: Array,
    fits: Mapping[str, Distribution],
    samples: Table,
    truth: Distribution | None = None,
    names: tuple[str, ...] = ("x", "y"),
) -> None:
    """Draw fits with ±2σ bands over the data, as in Figs. 1 and 8 of the β-NLL paper.

    Args:
        path: the PNG to write.
        inputs: ascending, [N]; they may reach beyond the samples.
        fits: by title, predictions [N, D] at ``inputs`` in original units.
        samples: the data, whose first input is drawn; the axes are fitted to it.
        truth: the true distribution at ``inputs``, drawn dotted.
        names: of the input and of each target dimension.
    """
    dimensions = samples.targets.shape[1]
    # Of many dimensions each has a row of its own, else the titles wrap.
    across = len(fits) if dimensions > 1 else _across(len(fits))
    figure, grid = _grid(len(fits) * dimensions, across, sharey="row")
    panels = [(title, d) for d in range(dimensions) for title in fits]
    for axes, (title, d) in zip(grid, panels, strict=True):
        _draw_samples(axes, samples, d)
        _draw_band(axes, inputs, fits[title], d)
        if truth is not None:
            mean, std = _moments(truth, d)
            axes.plot(inputs, mean, ":", color=_TRUTH, linewidth=1, label="truth, mean and ±2σ")
            for edge in (mean - 2 * std, mean + 2 * std):
                axes.plot(inputs, edge, ":", color=_TRUTH, linewidth=1)
        values = samples.targets[:, d]
        margin = 0.15 * np.ptp(values)
        axes.set(
            title=title if d == 0 else "",
            xlabel=names[0],
            ylabel=names[1 + d],
            xlim=(inputs[0], inputs[-1]),
            ylim=(values.min() - margin, values.max() + margin),
        )
    _keep_outer_labels(grid, across)
    _legend(figure, grid[0])
    save_figure(figure, path)


def draw_curves(
    path: Path,
    x: Array,
    curves: Mapping[str, Array],
    x_name: str,
    y_name: str,
    references: Mapping[str, float | Array] | None = None,
    is_log: tuple[bool, bool] = (False, False),
    y_limits: tuple[float, float] | None = None,
) -> None:
    """Draw each curve's median over seeds and the band of the middle 85 % of them.

    Where seeds have diverged, the legend says how many.

    Args:
        path: the PNG to write.
        x: updates, epochs or inputs, [T].
        curves: by label, [K, T].
        x_name: with its unit.
        y_name: with its unit.
        references: by label, a level or a curve [T], such as the oracle's.
        is_log: whether x and y have a logarithmic scale.
        y_limits: what to show, where single seeds would stretch the scale too far.
    """
    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x_name, ylabel=y_name, xlim=(x[0], x[-1]))
    axes.set_xscale("log" if is_log[0] else "linear")
    axes.set_yscale("log" if is_log[1] else "linear")
    bands = [seed_band(values) for values in curves.values()]
    finite = np.array(bands)[np.isfinite(bands)]
    top = y_limits[1] if y_limits else finite.max(initial=-np.inf)
    for number, (label, values) in enumerate(curves.items()):
        low, median, high = bands[number]
        color = _COLORS[number % len(_COLORS)]
        axes.fill_between(x, low, np.minimum(high, top), color=color, alpha=0.18, linewidth=0)
        stroke = _STROKES[number % len(_STROKES)]
        axes.plot(x, median, stroke, color=color, label=label + _diverged(values))
    for number, (label, level) in enumerate((references or {}).items()):
        stroke = _STROKES[-1 - number % len(_STROKES)]
        y = np.broadcast_to(level, x.shape)
        axes.plot(x, y, stroke, color=_TRUTH, linewidth=1.2, label=label)
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    # Beside the axes, for a curve may run anywhere.
    figure.legend(
        loc="outside right upper",
        fontsize="small",
        title=f"median, middle {_BAND:.0%} of seeds",
        title_fontsize="small",
    )
    save_figure(figure, path)


def seed_band(values: Array) -> tuple[Array, Array, Array]:
    """Return the lower edge, the median and the upper edge of curves [K, T], each [T].

    A seed that is not finite counts as infinitely large: it lifts the median and the edges and
    never drops out of them.
    """
    worst = np.where(np.isfinite(values), values, np.inf)
    tail = (1 - _BAND) / 2
    # "nearest" interpolates nothing, which it could not towards infinity.
    low, high = np.quantile(worst, [tail, 1 - tail], axis=0, method="nearest")
    return low, np.median(worst, axis=0), high


def draw_residuals(path: Path, residuals: Mapping[str, Array], unit: str) -> None:
    """Draw histograms of |target - mean| on a log scale, as in Fig. 6 of the β-NLL paper.

    Args:
        path: the PNG to write.
        residuals: by objective, any shape, in original units.
        unit: of the residuals.
    """
    sizes = {title: np.abs(values).ravel() for title, values in residuals.items()}
    shown = np.concatenate(list(sizes.values()))
    shown = shown[np.isfinite(shown) & (shown > 0)]
    bins = np.geomspace(shown.min(), shown.max(), 61)
    across = _across(len(sizes))
    figure, grid = _grid(len(sizes), across, sharey=True)
    for axes, (title, values) in zip(grid, sizes.items(), strict=True):
        finite = values[np.isfinite(values)]
        heights = np.full(len(finite), 1 / len(values))
        # An exact prediction has no logarithm; it is counted with the smallest residuals.
        axes.hist(np.maximum(finite, bins[0]), bins.tolist(), weights=heights, color=_FIT)
        rmse = np.sqrt(np.square(values).mean())
        label = f"RMSE {rmse:.3g}" if np.isfinite(rmse) else "RMSE not finite"
        axes.axvline(rmse, color=_COLORS[1], linestyle="--", label=label)
        axes.set(title=title, xscale="log", xlabel=f"|residual| ({unit})", ylabel="share of points")
        axes.legend(fontsize="small")
    _keep_outer_labels(grid, across)
    save_figure(figure, path)


def sampling_probabilities(variance: Array, beta: float = 0.0) -> Array:
    """Return how often a loss samples each point in effect: σ^2β / σ², summing to one.

    Args:
        variance: predicted variances (or squared residuals, for the reference), [..., N].
        beta: the loss's β; 1 is uniform (Eqs. 6 and 8 of the β-NLL paper).
    """
    # Relative to the least one, so that no power overflows.
    weights = (variance / variance.min(-1, keepdims=True)) ** (beta - 1)
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def draw_sampling(
    path: Path, inputs: Array, updates: Array, probabilities: Mapping[str, Array]
) -> None:
    """Draw effective sampling probabilities over inputs and time, as in Fig. 5 of β-NLL.

    Args:
        path: the PNG to write.
        inputs: [N], in any order.
        updates: ascending, [T].
        probabilities: by objective, [T, N], on one colour scale.
    """
    order = np.argsort(inputs)
    shown = np.concatenate([values.ravel() for values in probabilities.values()])
    # Colours run over what is distinguishable, and say so where they end.
    norm = LogNorm(max(shown.min(), 1e-8), shown.max())
    across = _across(len(probabilities))
    figure, grid = _grid(len(probabilities), across, sharey=True)
    for axes, (title, values) in zip(grid, probabilities.items(), strict=True):
        image = axes.pcolormesh(
            updates, inputs[order], values[:, order].T, norm=norm, cmap=_SEQUENTIAL, rasterized=True
        )
        axes.set(title=title, xlabel="updates", ylabel="x")
        axes.locator_params(axis="x", nbins=4)
    _keep_outer_labels(grid, across)
    bar = figure.colorbar(
        image,
        ax=grid,
        label="effective sampling probability\n(line: uniform)",
        extend="min" if shown.min() < norm.vmin else "neither",
    )
    bar.ax.axhline(1 / len(inputs), color=_COLORS[1], linewidth=2)
    save_figure(figure, path)


def draw_sampling_histograms(
    path: Path, updates: Array, probabilities: Array, reference: Array | None = None
) -> None:
    """Draw how effective sampling probabilities spread over training, as in Fig. S4 of β-NLL.

    Args:
        path: the PNG to write.
        updates: a few moments of training, [T].
        probabilities: of the same N points at each moment, [T, N].
        reference: those by the squared residuals of a model trained with MSE, [N].
    """
    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.subplots()
    everything = np.append(probabilities.ravel(), reference if reference is not None else [])
    bins = np.geomspace(max(everything.min(), 1e-12), everything.max() * 1.01, 51)
    shades = np.linspace(0.0, 0.9, len(updates))
    for update, values, shade in zip(updates, probabilities, shades, strict=True):
        _outline(
            axes,
            values,
            bins,
            colormaps[_SEQUENTIAL](float(shade)),
            "-",
            f"after {int(update):,} updates",
        )
    if reference is not None:
        _outline(axes, reference, bins, _COLORS[1], "--", "reference: squared residuals of MSE")
    uniform = 1 / probabilities.shape[1]
    axes.axvline(uniform, color=_TRUTH, linestyle=":", label=f"uniform, {uniform:.2g}")
    axes.set(xscale="log", xlabel="effective sampling probability", ylabel="share of points")
    figure.legend(loc="outside right upper", fontsize="small")
    save_figure(figure, path)


def _across(panels: int) -> int:
    """Return how many panels a row has, so that the rows are about equally long."""
    return -(-panels // -(-panels // _MOST_ACROSS))


def _grid(panels: int, across: int, sharey: Literal["row"] | bool) -> tuple[Figure, list[Axes]]:
    down = -(-panels // across)
    size = (max(3 * across, 6) + 0.6, 2.6 * down + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=sharey).flatten()
    for unused in grid[panels:]:
        unused.set_axis_off()
    return figure, list(grid[:panels])


def _keep_outer_labels(grid: list[Axes], across: int) -> None:
    for number, axes in enumerate(grid):
        # Not `label_outer`, which takes an empty place below for a panel.
        is_lowest = number + across >= len(grid)
        axes.tick_params(labelbottom=is_lowest)
        if not is_lowest:
            axes.set_xlabel("")
        if number % across:
            axes.set_ylabel("")


def _draw_samples(axes: Axes, samples: Table, dimension: int) -> None:
    every = max(1, len(samples) // _MOST_POINTS)
    x, y = samples.inputs[::every, 0], samples.targets[::every, dimension]
    axes.scatter(x, y, s=3, color=_DATA, linewidths=0, zorder=1.5, label="data")


def _draw_band(axes: Axes, inputs: Array, fit: Distribution, dimension: int) -> None:
    mean, std = _moments(fit, dimension)
    axes.fill_between(
        inputs,
        mean - 2 * std,
        mean + 2 * std,
        color=_FIT,
        alpha=0.3,
        linewidth=0,
        label="fit, ±2σ",
    )
    axes.plot(inputs, mean, color=_FIT, linewidth=1.4, label="fit, mean")


def _moments(fit: Distribution, dimension: int) -> tuple[Array, Array]:
    mean, variance = fit.mean[:, dimension], fit.variance[:, dimension]
    return mean.double().cpu().numpy(), variance.double().sqrt().cpu().numpy()


def _diverged(values: Array) -> str:
    count = int((~np.isfinite(values)).any(axis=1).sum())
    return f" ({count} of {len(values)} diverged)" if count else ""


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, fontsize="small", markerscale=2
    )


def _outline(axes: Axes, values: Array, bins: Array, color: Color, stroke: str, label: str) -> None:
    inside = np.clip(values, bins[0], bins[-1])
    heights = np.full(len(values), 1 / len(values))
    axes.hist(
        inside,
        bins.tolist(),
        weights=heights,
        histtype="step",
        color=color,
        linestyle=stroke,
        label=label,
        linewidth=1.4,
    )
