"""Trainer: one training run, with per-member early stopping and resumption.

Shapes: E members, B batch, M transitions, I inputs, D targets.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.models.heads import MIN_STD
from dynlearn.models.networks import view_members
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.storage.tensors import load_state, save_state
from dynlearn.storage.uri import without_secrets
from dynlearn.training.early_stopping import EarlyStopping, choose_elites
from dynlearn.training.group import GroupMeasures
from dynlearn.training.hooks import Hooks
from dynlearn.training.progress import Progress
from dynlearn.training.threads import SideBySide, even_parts, groups_for_threads
from dynlearn.training.training_data import Samples, standardise

# Between two looks at whether to stop; every look is a rendezvous of the groups.
_SECONDS_BETWEEN_LOOKS = 1.5

logger = logging.getLogger(__name__)


class Trainer:
    """One training run: the regressor, its data on the device, the groups of members."""

    def __init__(
        self,
        config: TrainConfig,
        regressor: EnsembleRegressor,
        training: Samples,
        validation: Samples,
        hooks: Hooks | None = None,
    ):
        """Set up a run from update zero: fit the regressor's scalers, draw its weights.

        Args:
            config: how to train.
            regressor: what to train, changed in place, on its own device.
            training: to learn from.
            validation: to select on.
            hooks: of the run.

        Raises:
            CorruptData: a value is not finite.
            InvalidInput: the objective cannot be had for this regressor or data.
        """
        self.config = config
        self.regressor = regressor
        self.hooks = hooks or Hooks()
        dtype = torch.float64 if config.precision == "float64" else torch.float32
        data, self.checksum = standardise(regressor, training, validation, dtype)
        regressor.network.to(dtype)
        self.log_scale = _log_scale(regressor)
        self.groups = [
            self.hooks.make_group(
                config, view_members(regressor.network, members), data, members.start
            )
            for members in even_parts(regressor.members, _group_count(config, regressor))
        ]
        self.update = 0
        self.stopping = EarlyStopping(config.patience, regressor.network.state_dict())
        self.history: list[dict[str, Any]] = []

    def run(self) -> bool:
        """Train to the end and put each member's best weights into the regressor.

        Returns:
            Whether training reached its end.

        """
        checkpoint = self.hooks.checkpoint
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        elif checkpoint is not None:
            self.save(checkpoint)
        started = (time.perf_counter(), self.update)
        most_updates = 1
        with SideBySide(self.groups, self._threads()) as groups:
            while self.update < self.config.max_updates and not self.stopping.all_stopped:
                updates = min(most_updates, self._updates_to_next_event())
                began = time.perf_counter()
                groups.advance(updates)
                per_update = (time.perf_counter() - began) / updates
                most_updates = max(1, int(_SECONDS_BETWEEN_LOOKS / per_update))
                self.update += updates
                at_end = self.update == self.config.max_updates
                if at_end or self.update % self.config.validate_every == 0:
                    self.hooks.on_progress(self._validate(groups.validate(), started))
                    started = (time.perf_counter(), self.update)
                stop = self.hooks.should_stop()
                if checkpoint and (stop or self.update % self.config.checkpoint_every == 0):
                    self.save(checkpoint)
                if stop:
                    return False
        if checkpoint:
            self.save(checkpoint)
        self.regressor.network.load_state_dict(self.stopping.best)
        self.regressor.network.float()
        return True

    def elites(self) -> list[int]:
        """Return the members to predict with: all, or the best in validation, best first.

        Those that diverged before they were ever good are none of them.

        Raises:
            NumericalFailure: every one did.
        """
        return choose_elites(self.stopping.best_measure, self.config.elites)

    def save(self, path: Path) -> None:
        """Write everything that `load` needs to go on as if nothing had happened."""
        states = [group.state() for group in self.groups]
        tensors = {name: torch.cat([state[name] for state in states]) for name in states[0]}
        tensors |= {f"best.{k}": v for k, v in self.stopping.best.items()}
        tensors |= {f"stopping.{k}": v for k, v in self.stopping.state().items()}
        state = {"run": self._identity(), "update": self.update, "history": self.history}
        save_state(path, tensors, state)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            InvalidInput: it was made with another configuration or other data.
            CorruptData: it is truncated, altered or of another version of dynlearn.
        """
        tensors, state = load_state(path)
        try:
            differing = sorted(
                key for key, value in self._identity().items() if state["run"].get(key) != value
            )
            if differing:
                raise InvalidInput(
                    f"expected the configuration and data that {path} was made with, got another "
                    f"{', '.join(differing)}; change it back or delete the file to start over"
                )
            self._restore(tensors, state)
        except (IndexError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CorruptData(
                f"expected a checkpoint of this version of dynlearn, got {path} ({reason}); "
                "delete it to start over"
            ) from error

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): tensors.pop(name).to(self.regressor.device)
                for name in list(tensors)
                if name.startswith(prefix)
            }

        self.stopping.load(part("best."), part("stopping."))
        parts = even_parts(self.regressor.members, len(self.groups))
        for group, members in zip(self.groups, parts, strict=True):
            group.load({name: tensor[members] for name, tensor in tensors.items()}, state["update"])
        self.update, self.history = state["update"], state["history"]

    def _threads(self) -> int:
        return self.config.workers if self.config.workers > 1 else torch.get_num_threads()

    def _updates_to_next_event(self) -> int:
        config = self.config
        return min(
            config.max_updates - self.update,
            config.validate_every - self.update % config.validate_every,
            config.checkpoint_every - self.update % config.checkpoint_every,
        )

    def _validate(self, parts: list[GroupMeasures], started: tuple[float, int]) -> Progress:
        measures = GroupMeasures(*(torch.cat(part) for part in zip(*parts, strict=True)))
        nll = measures.nll + self.log_scale
        before = self.stopping.stopped
        measure = measures.squared_error.mean(1) if self.config.select_by == "rmse" else nll
        self.stopping.observe(measure, self.regressor.network.state_dict())
        if (lost := ~measure.isfinite() & ~before).any():
            logger.warning(
                "members %s diverged at update %d and keep their best weights, if they have any",
                lost.nonzero().flatten().tolist(),
                self.update,
            )
        began, first = started
        progress = Progress(
            update=self.update,
            updates=self.config.max_updates,
            updates_per_s=(self.update - first) / (time.perf_counter() - began),
            train_nll=(measures.train_nll + self.log_scale).tolist(),
            train_rmse=self._rmse(measures.train_squared_error).tolist(),
            validation_nll=nll.tolist(),
            validation_rmse=self._rmse(measures.squared_error).tolist(),
            stopped=int(self.stopping.stopped.sum()),
        )
        if nll.isfinite().any():
            self.history.append({"update": self.update, **progress.means()})
        return progress

    def _rmse(self, squared_error: Tensor) -> Tensor:
        """Return the RMSE in original units [E] of standardised squared errors [E, D]."""
        return (squared_error * self.regressor.target_scaler.std.square()).mean(1).sqrt()

    def _identity(self) -> dict[str, object]:
        """Return what must be the same for a run to go on."""
        shown = {"dataset": without_secrets(self.config.dataset), "data": self.checksum}
        return (
            self.config.model_dump(
                mode="json",
                exclude={"resume", "device", "member_groups", "workers", "learn_reward", "elites"},
            )
            | shown
        )


def _log_scale(regressor: EnsembleRegressor) -> float:
    """Return what a NLL in original units has beyond one in standardised units.

    A constant's deviation will be what float32 resolves, which the head's least stands for here.
    """
    std, least = regressor.target_scaler.std.double(), regressor.least_std.double()
    return float(torch.where(std < least, least / MIN_STD, std).log().sum())


def _group_count(config: TrainConfig, regressor: EnsembleRegressor) -> int:
    """Return into how many groups the members are parted: one on a GPU."""
    if config.workers > 1:
        return config.workers
    if config.member_groups is not None:
        return config.member_groups
    if regressor.device.type != "cpu":
        return 1
    weights = sum(parameter.numel() for parameter in regressor.network.parameters())
    multiplications = weights / regressor.members * config.batch_size
    return groups_for_threads(regressor.members, multiplications, torch.get_num_threads())
