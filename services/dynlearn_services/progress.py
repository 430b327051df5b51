"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tqdm import tqdm

    from dynlearn.training.progress import Progress
    from dynlearn_services.collection.writer import CollectProgress

_SECONDS_BETWEEN_LINES = 5.0


class ProgressBar:
    """Shows how far a long piece of work has come, with a few figures beside it."""

    def __init__(self, label: str, total: int, unit: str):
        self._label, self._total, self._unit = label, total, unit
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=label, unit=f" {unit}", dynamic_ncols=True)
        self._last_line = -float("inf")
        self._shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, figures: Mapping[str, str], total: int | None = None) -> None:
        """Show that ``done`` of the total are done, and the figures by name."""
        if total is not None and total != self._total:
            self._total = total
            if self._bar is not None:
                self._bar.reset(total)
        if self._bar is not None:
            self._bar.set_postfix(figures, refresh=False)
            self._bar.update(done - self._shown)
        elif done >= self._total or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            words = ", ".join(f"{name} {value}" for name, value in figures.items())
            line = f"{self._label}: {done}/{self._total} {self._unit}" + f", {words}" * bool(words)
            print(line, file=sys.stderr, flush=True)
        self._shown = done


def collection_figures(progress: CollectProgress) -> dict[str, str]:
    """Return what to show of a collection."""
    figures = {"steps/s": f"{progress.steps_per_s:.0f}"}
    if progress.contact_share is not None:
        figures["contact"] = f"{progress.contact_share:.1%}"
    if progress.success_share is not None:
        figures["success"] = f"{progress.success_share:.1%}"
    if progress.faults:
        figures["faults"] = str(progress.faults)
    return figures


def training_figures(progress: Progress) -> dict[str, str]:
    """Return what to show of a training run: means over the members that have not diverged."""
    means = progress.means()
    return {
        "updates/s": f"{progress.updates_per_s:.0f}",
        "train NLL": f"{means['train_nll']:.5g}",
        "train RMSE": f"{means['train_rmse']:.4g}",
        "validation NLL": f"{means['validation_nll']:.5g}",
        "validation RMSE": f"{means['validation_rmse']:.4g}",
    }
