"""Early stopping of each ensemble member for itself."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dynlearn.errors import NumericalFailure


class EarlyStopping:
    """Remembers each member's best weights, and when to give a member up.

    A member stops after ``patience`` observations without a better one; what it does later no
    longer counts. Every tensor has the E members first.
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
        """Take in a validation measure of each member [E], lower better; NaN is never better."""
        stopped = self.stopped
        improved = (measure < self.best_measure) & ~stopped
        for name, tensor in weights.items():
            self.best[name][improved] = tensor.detach()[improved]
        self.best_measure = torch.where(improved, measure, self.best_measure)
        self.since_best = torch.where(improved, 0, self.since_best + (~stopped).long())
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

    Raises:
        NumericalFailure: one of them has diverged before it was ever good.
    """
    members = list(range(len(measure)))
    if elites is not None:
        members = torch.argsort(measure)[:elites].tolist()
    diverged = [member for member in members if not measure[member].isfinite()]
    if diverged:
        raise NumericalFailure(
            f"expected a finite validation NLL of every member, got none for members "
            f"{diverged}; lower the learning rate or keep fewer elites"
        )
    return members
