"""Progress: how far a fit has come, in numbers; whoever shows it makes words of them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Part = Literal["dynamics", "reward"]


@dataclass(frozen=True)
class Progress:
    """Where a fit stands after a validation.

    NLL is in nats, summed over the targets; RMSE is over the targets, in their original units.

    Attributes:
        update: gradient updates made.
        updates: that there will be, unless every member stops before.
        updates_per_s: since the last validation.
        train_nll: of each member, mean over some updates since the last validation.
        train_rmse: likewise.
        validation_nll: of each member.
        validation_rmse: of each member.
        stopped: members that have stopped.
        part: of the model that is being fitted.
    """

    update: int
    updates: int
    updates_per_s: float
    train_nll: list[float]
    train_rmse: list[float]
    validation_nll: list[float]
    validation_rmse: list[float]
    stopped: int
    part: Part = "dynamics"

    def means(self) -> dict[str, float]:
        """Return the four measures' means over the members that have not diverged."""
        names = ("train_nll", "train_rmse", "validation_nll", "validation_rmse")
        return {name: _finite_mean(getattr(self, name)) for name in names}


def _finite_mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
