"""Tables of our figures beside the papers' and the oracle's, and the files that keep them."""

import argparse
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.data.paper import Printed
from dynlearn.errors import DynlearnError

Statistic = Literal["mean", "median"]


@dataclass(frozen=True)
class Runs:
    """One figure of every seed or split; what diverged is not finite, and is never hidden."""

    values: tuple[float, ...]

    @property
    def finite(self) -> list[float]:
        """The figures of the runs that did not diverge."""
        return [value for value in self.values if math.isfinite(value)]

    @property
    def mean(self) -> float:
        """The mean of the finite runs."""
        return float(np.mean(self.finite)) if self.finite else math.nan

    @property
    def median(self) -> float:
        """The median of the finite runs."""
        return float(np.median(self.finite)) if self.finite else math.nan

    @property
    def std(self) -> float:
        """The standard deviation of the finite runs, n - 1 in the denominator; 0 of one run."""
        return float(np.std(self.finite, ddof=1)) if len(self.finite) > 1 else 0.0

    def text(self, statistic: Statistic = "mean") -> str:
        """Return ``mean ± std``, or ``median [least, greatest]``, and how many runs diverged."""
        if not self.finite:
            return "diverged"
        if statistic == "mean":
            decimals = _decimals(self.std or abs(self.mean) / 10)
            text = f"{self.mean:.{decimals}f} ± {self.std:.{decimals}f}"
        else:
            low, high = min(self.finite), max(self.finite)
            # One run far off must not hide how the others differ.
            middle = float(np.subtract(*np.quantile(self.finite, [0.75, 0.25])))
            decimals = _decimals(min(self.std, 10 * middle) or abs(self.median) / 10)
            text = f"{self.median:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
        diverged = len(self.values) - len(self.finite)
        return f"{text} ({diverged} of {len(self.values)} diverged)" if diverged else text


def _decimals(spread: float) -> int:
    """Return how many decimals show two digits of ``spread``."""
    return min(8, max(0, 1 - math.floor(math.log10(spread)))) if spread > 0 else 2


def standard_errors_apart(ours: Runs, paper: Printed) -> float:
    """Return by how many standard errors two means differ beyond the paper's rounding."""
    if len(ours.finite) < len(ours.values):
        return math.inf
    difference = max(0.0, abs(ours.mean - paper.mean) - paper.rounding)
    error = math.hypot(ours.std / math.sqrt(len(ours.values)), paper.std / math.sqrt(paper.runs))
    if difference == 0:
        return 0.0
    return difference / error if error else math.inf


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is a label, the others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comparison_table(
    ours: Mapping[str, Mapping[str, Runs]],
    paper: Mapping[str, Mapping[str, Printed]] | None = None,
    oracle: Mapping[str, float] | None = None,
    statistic: Statistic = "mean",
) -> str:
    """Return our figures, beside the paper's where it prints the metric, above the oracle's.

    Args:
        ours: by row label (the objective), then by metric; the columns are all rows' metrics.
        paper: the same keys; rows and metrics may be missing. ``apart`` counts standard errors
            of the difference of means, bold above two.
        oracle: what the true distribution scores, by metric.
        statistic: how our runs are summed up.
    """
    paper = paper or {}
    metrics = list(dict.fromkeys(metric for figures in ours.values() for metric in figures))
    printed = {metric for label in ours for metric in paper.get(label, {})}
    header, last = [""], ["oracle"]
    for metric in metrics:
        header += [metric, "paper", "apart"] if metric in printed else [metric]
        last.append(f"{oracle[metric]:.4g}" if oracle and metric in oracle else "")
        last += ["", ""] if metric in printed else []
    rows = []
    for label, figures in ours.items():
        row = [label]
        for metric in metrics:
            runs, theirs = figures.get(metric), paper.get(label, {}).get(metric)
            row.append(runs.text(statistic) if runs else "")
            if metric in printed:
                row += [theirs.text if theirs else "", _apart(runs, theirs)]
        rows.append(row)
    return markdown_table(header, [*rows, last] if oracle else rows)


def _apart(ours: Runs | None, paper: Printed | None) -> str:
    if ours is None or paper is None:
        return ""
    apart = standard_errors_apart(ours, paper)
    return f"{apart:.1f}" if apart <= 2 else f"**{apart:.1f}**"


def command_line(benchmark: str, arguments: argparse.Namespace) -> str:
    """Return the command that gave these arguments, without any machine's paths."""
    words = ["python", "-m", f"benchmarks.{benchmark}"]
    for name, value in vars(arguments).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, Path):
            words += [flag, name.upper()]
        elif value is True:
            words.append(flag)
        elif isinstance(value, list | tuple):
            words += [flag, *map(str, value)]
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return shlex.join(words)


def write_results(
    path: Path, title: str, command: str, seed: int, body: str, day: date | None = None
) -> None:
    """Write a results file that states how it was made; an older one is replaced whole."""
    day = day or datetime.now(UTC).date()
    text = (
        f"# {title}\n\n"
        f"Made by `{command}`, seed {seed}, on {day.isoformat()}, "
        f"with torch {torch.__version__} on {_hardware()}.\n\n"
        f"{body.strip()}\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def _hardware() -> str:
    cores = f"{os.cpu_count()} CPU cores"
    return f"{cores} and {torch.cuda.get_device_name()}" if torch.cuda.is_available() else cores


def run_command(main: Callable[[], None]) -> None:
    """Run a benchmark's ``main``; where it cannot go on, end with a line that says why."""
    try:
        main()
    except DynlearnError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def print_figures(benchmark: str, figures: Mapping[str, float]) -> None:
    """Print the last line of a benchmark, one JSON object; what is not finite becomes null."""
    plain = {key: float(value) if math.isfinite(value) else None for key, value in figures.items()}
    print(json.dumps({"benchmark": benchmark, "figures": plain}, allow_nan=False))
    sys.stdout.flush()
