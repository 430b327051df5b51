"""Trainer: one loop over minibatches, with per-member early stopping and resumption.

Shapes: E members, B batch, M transitions, I inputs, D targets.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlearn.checkpoint import load_state, save_state
from dynlearn.config import TrainConfig
from dynlearn.errors import CorruptData, InvalidInput, NumericalFailure
from dynlearn.gaussian import DiagonalGaussian
from dynlearn.model import DynamicsModel
from dynlearn.networks import MAX_VARIANCE, MIN_VARIANCE
from dynlearn.objectives import make_objective
from dynlearn.stopping import EarlyStopping
from dynlearn.transitions import Transitions, bootstrap

_CHUNK = 16_384
_WEIGHTS, _RESAMPLE, _SHUFFLE = range(3)


@dataclass(frozen=True)
class TrainingProgress:
    """Where a training run stands after a validation. NLL and RMSE are in original units.

    Attributes:
        update: gradient updates made.
        updates_per_s: since the last validation.
        train_nll: mean over the updates since the last validation and over the members, without
            those that have diverged.
        train_rmse: likewise.
        validation_nll: of each member.
        validation_rmse: of each member.
        stopped: members that have stopped.
    """

    update: int
    updates_per_s: float
    train_nll: float
    train_rmse: float
    validation_nll: list[float]
    validation_rmse: list[float]
    stopped: int


class Trainer:
    """One training run: the model, its data on the device, the optimiser and what it remembers."""

    def __init__(
        self, config: TrainConfig, model: DynamicsModel, train: Transitions, validation: Transitions
    ):
        """Set up a run from update zero: fit the model's scalers, draw its weights."""
        self.config = config
        self.model = model
        self.objective = make_objective(config)
        self.device = model.device
        inputs, targets = _inputs_and_targets(model, train)
        validation_inputs, validation_targets = _inputs_and_targets(model, validation)
        self.data = _checksum(inputs, targets, validation_inputs, validation_targets)
        model.input_scaler.fit(inputs)
        model.target_scaler.fit(targets)
        self.inputs, self.targets = _standardised(model, inputs, targets)
        self.validation_inputs, self.validation_targets = _standardised(
            model, validation_inputs, validation_targets
        )
        # What a NLL in original units has beyond one in standardised units.
        self.log_scale = float(model.target_scaler.std.double().log().sum())
        model.network.initialize(config.initialization, self._generator(_WEIGHTS, "cpu"))
        self.optimizer = torch.optim.Adam(
            model.network.parameters(), lr=config.learning_rate, fused=True
        )
        self.resample = self._resample()
        self.batch_size = min(config.batch_size, len(self.inputs))
        self.update = 0
        self.stopping = EarlyStopping(config.patience, model.network.state_dict())
        # Each member's NLL and squared error, summed over the updates since the last validation.
        self.totals = torch.zeros(2, config.members, device=self.device)
        self.history: list[dict[str, float]] = []

    def run(
        self,
        checkpoint: Path | None = None,
        on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train to the end and put each member's best weights into the model.

        Args:
            checkpoint: the file to go on from where there is one, and to save into.
            on_progress: called after every validation.
            should_stop: asked after every update; on True the state is saved and training ends.

        Returns:
            Whether training reached its end.

        Raises:
            NumericalFailure: every member's validation NLL is NaN or infinite.
        """
        if checkpoint is not None and checkpoint.exists():
            self.load(checkpoint)
        elif checkpoint is not None:
            self.save(checkpoint)
        config, started = self.config, (time.perf_counter(), self.update)
        epoch_order, epoch = None, -1
        while self.update < config.max_updates and not self.stopping.all_stopped:
            updates_per_epoch = len(self.inputs) // self.batch_size
            if epoch != self.update // updates_per_epoch:
                epoch = self.update // updates_per_epoch
                epoch_order = self._epoch_order(epoch)
            assert epoch_order is not None
            start = self.update % updates_per_epoch * self.batch_size
            self._step(epoch_order[:, start : start + self.batch_size])
            if self.update % config.validate_every == 0 or self.update == config.max_updates:
                on_progress(self._validate(started))
                started = (time.perf_counter(), self.update)
            stop = should_stop()
            if checkpoint and (stop or self.update % config.checkpoint_every == 0):
                self.save(checkpoint)
            if stop:
                return False
        if checkpoint:
            self.save(checkpoint)
        self.model.network.load_state_dict(self.stopping.best)
        return True

    def elites(self) -> list[int]:
        """Return the members to predict with: all, or the best in validation, best first.

        Raises:
            NumericalFailure: one of them has diverged before it was ever good.
        """
        measure = self.stopping.best_measure
        members = list(range(self.config.members))
        if self.config.elites is not None:
            members = torch.argsort(measure)[: self.config.elites].tolist()
        diverged = [member for member in members if not measure[member].isfinite()]
        if diverged:
            raise NumericalFailure(
                f"expected a finite validation NLL of every member, got none for members "
                f"{diverged}; lower the learning rate or keep fewer elites"
            )
        return members

    def save(self, path: Path) -> None:
        """Write everything that `load` needs to go on as if nothing had happened."""
        tensors = {
            **{f"network.{k}": v for k, v in self.model.network.state_dict().items()},
            **{f"best.{k}": v for k, v in self.stopping.best.items()},
            **{f"stopping.{k}": v for k, v in self.stopping.state().items()},
            "totals": self.totals,
        }
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in slots.items()}
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
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CorruptData(
                f"expected a checkpoint of this version of dynlearn, got {path} ({reason}); "
                "delete it to start over"
            ) from error

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): tensor.to(self.device)
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }

        self.model.network.load_state_dict(part("network."))
        self.stopping.load(part("best."), part("stopping."))
        self.totals = tensors["totals"].to(self.device)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part("optimizer.").items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        self.update, self.history = state["update"], state["history"]

    def _step(self, rows: Tensor) -> None:
        target = self.targets[rows]
        prediction = self.model.network(self.inputs[rows])
        loss = self.objective.loss(prediction, target, rows)
        self.optimizer.param_groups[0]["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.sum())
        self.optimizer.step()
        self.update += 1
        with torch.no_grad():
            nll = -prediction.log_prob(target).mean(1)
            error = (prediction.mean - target) * self.model.target_scaler.std
            self.totals += torch.stack((nll, error.square().mean((1, 2))))

    def _validate(self, started: tuple[float, int]) -> TrainingProgress:
        nll, rmse, standardised_rmse = self._validation_measures()
        if not nll.isfinite().any():
            raise NumericalFailure(
                f"expected a finite validation NLL, got {nll.tolist()} at update {self.update}; "
                "lower the learning rate"
            )
        measure = nll if self.config.select_by == "nll" else standardised_rmse
        self.stopping.observe(measure, self.model.network.state_dict())
        began, first = started
        updates = self.update - first
        totals = self.totals / self._updates_since_validation()
        progress = TrainingProgress(
            update=self.update,
            updates_per_s=updates / (time.perf_counter() - began),
            train_nll=_finite_mean(totals[0]) + self.log_scale,
            train_rmse=_finite_mean(totals[1]) ** 0.5,
            validation_nll=nll.tolist(),
            validation_rmse=rmse.tolist(),
            stopped=int(self.stopping.stopped.sum()),
        )
        self.totals.zero_()
        self.history.append(
            {
                "update": self.update,
                "train_nll": progress.train_nll,
                "train_rmse": progress.train_rmse,
                "validation_nll": _finite_mean(nll),
                "validation_rmse": _finite_mean(rmse),
            }
        )
        return progress

    @torch.no_grad()
    def _validation_measures(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return each member's NLL and RMSE in original units and its standardised RMSE, [E]."""
        network, targets = self.model.network, self.validation_targets
        predictions = [network(inputs) for inputs in torch.split(self.validation_inputs, _CHUNK)]
        mean = torch.cat([prediction.mean for prediction in predictions], 1)
        variance = torch.cat([prediction.variance for prediction in predictions], 1)
        squared_error = (mean - targets).square()
        if not network.learned_variance:
            network.residual_variance.copy_(squared_error.mean(1, keepdim=True))
            network.residual_variance.clamp_(MIN_VARIANCE, MAX_VARIANCE)
            variance = network.residual_variance.expand_as(mean)
        nll = self.log_scale - DiagonalGaussian(mean, variance).log_prob(targets).mean(1)
        original = squared_error * self.model.target_scaler.std.square()
        return nll, original.mean((1, 2)).sqrt(), squared_error.mean((1, 2)).sqrt()

    def _learning_rate(self) -> float:
        share = 1.0
        if self.config.schedule == "cosine":
            share = 0.5 + 0.5 * math.cos(math.pi * self.update / self.config.max_updates)
        return self.config.learning_rate * share

    def _updates_since_validation(self) -> int:
        return (self.update - 1) % self.config.validate_every + 1

    def _generator(self, purpose: int, device: torch.device | str, *more: int) -> torch.Generator:
        """Return a generator that depends on nothing but the seed, its purpose and ``more``."""
        words = np.random.SeedSequence([self.config.seed, purpose, *more]).generate_state(2)
        return torch.Generator(device).manual_seed(int(words[0]) << 31 ^ int(words[1]))

    def _resample(self) -> Tensor:
        """Return the transitions that each member learns from, [E, M]."""
        count, members = len(self.inputs), self.config.members
        if self.config.bootstrap and members > 1:
            return bootstrap(count, members, self._generator(_RESAMPLE, self.device))
        return torch.arange(count, device=self.device).expand(members, count)

    def _epoch_order(self, epoch: int) -> Tensor:
        """Return each member's transitions in this epoch's order, [E, M]."""
        generator = self._generator(_SHUFFLE, self.device, epoch)
        keys = torch.rand(self.resample.shape, generator=generator, device=self.device)
        return self.resample.gather(1, keys.argsort(1))

    def _identity(self) -> dict[str, object]:
        """Return what must be the same for a run to go on."""
        return self.config.model_dump(mode="json", exclude={"resume", "device"}) | {
            "data": self.data
        }


def _inputs_and_targets(model: DynamicsModel, transitions: Transitions) -> tuple[Tensor, Tensor]:
    """Return the network's raw inputs [M, I] and targets [M, D], in float64."""
    observation = torch.from_numpy(transitions.observation.astype(np.float64))
    next_observation = torch.from_numpy(transitions.next_observation.astype(np.float64))
    action = torch.from_numpy(transitions.action.astype(np.float64))
    inputs = torch.cat((observation[:, list(model.spec.observation_columns)], action), 1)
    columns = list(model.spec.target_columns)
    # Differences of close values: taken in float64, before anything is rounded to float32.
    return inputs, next_observation[:, columns] - observation[:, columns] * model.delta.cpu()


def _checksum(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _finite_mean(values: Tensor) -> float:
    return float(values[values.isfinite()].mean())


def _standardised(model: DynamicsModel, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return both standardised, in float32 on the model's device."""
    return (
        model.input_scaler.standardise(inputs.to(model.device)).float(),
        model.target_scaler.standardise(targets.to(model.device)).float(),
    )
