"""Early stopping of each ensemble member for itself."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from dynlearn.errors import NumericalFailure

logger = logging.getLogger(__name__)


class EarlyStopping:
    """Remembers each member's best weights, and when to give a member up.

    A member stops after ``patience`` observations without a better one, and at one that is not
    finite, from which weights do not recover; what it does later no longer counts. Every tensor has
    the E members first.
    """

    def __init__(self, patience: int, weights: Mapping[str, Tensor]):
        """Start with ``weights`` as the best so far, at a measure of infinity."""
        self.patience = patience
        self.best = {name: tensor.detach().clone() for name, tensor in weights.items()}
        first = next(iter(self.best.values()))
        self.best_measure = torch.full((len(first),), torch.inf, device=first.device)
        self.since_best = torch.zeros(len(first), dtype=torch.int64, device=first.device)
        self.all_stopped = False

    @property
    def stopped(self) -> Tensor:
        """Which members have stopped, [E]."""
        return self.since_best >= self.patience

    def observe(self, measure: Tensor, weights: Mapping[str, Tensor]) -> None:
        """Take in a validation measure of each member [E], lower better."""
        stopped = self.stopped
        finite = measure.isfinite()
        improved = finite & (measure < self.best_measure) & ~stopped
        for name, tensor in weights.items():
            self.best[name][improved] = tensor.detach()[improved]
        self.best_measure = torch.where(improved, measure, self.best_measure)
        self.since_best = torch.where(improved, 0, self.since_best + (~stopped).long())
        self.since_best = self.since_best.where(finite, self.since_best.clamp_min(self.patience))
        # Kept, because asking the device after every update would stall it.
        self.all_stopped = bool(self.stopped.all())

    def state(self) -> dict[str, Tensor]:
        """Return what `load` needs beside the best weights."""
        return {"best_measure": self.best_measure, "since_best": self.since_best}

    def load(self, best: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Go on from earlier best weights and `state`.

        Raises:
            KeyError: a part is missing.
        """
        self.best = {name: best[name] for name in self.best}
        self.best_measure, self.since_best = state["best_measure"], state["since_best"]
        self.all_stopped = bool(self.stopped.all())


def choose_elites(measure: Tensor, elites: int | None) -> list[int]:
    """Return the members to predict with by their best validation measures [E]: all, or the best.

    Those that diverged before they were ever good are left out, with a warning.

    Raises:
        NumericalFailure: all of them did.
    """
    good = measure.isfinite().nonzero().flatten().tolist()
    if not good:
        raise NumericalFailure(
            "expected a finite validation NLL of any member, got none at the first validation or "
            "later; lower the learning rate, or look for values far from all others in the dataset"
        )
    if len(good) < len(measure):
        diverged = sorted(set(range(len(measure))) - set(good))
        logger.warning(
            "members %s diverged before their first good validation and are left out; %d are kept",
            diverged,
            min(len(good), elites or len(good)),
        )
    if elites is None:
        return good
    by_measure: list[int] = torch.argsort(measure).tolist()
    return [member for member in by_measure if member in good][:elites]
