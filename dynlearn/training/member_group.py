"""MemberGroup: ensemble members that are updated together, and all that belongs to them.

Members never meet in training, so a group is trained alone: on a thread, a device or a machine of
its own. Nothing of a member depends on which others are in its group.

Shapes: E members of the group, B batch, M samples, I inputs, D targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.distributions.mixture import Distribution
from dynlearn.models.heads import MAX_VARIANCE, MIN_VARIANCE
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.objectives import make_objective
from dynlearn.seeds import OBJECTIVE, RESAMPLE, SHUFFLE, WEIGHTS, derived_generator, derived_seed
from dynlearn.training.adam import Adam
from dynlearn.training.group import GroupMeasures
from dynlearn.training.training_data import TrainingData

_MEASURE_EVERY = 10
_CHUNK = 2_048


class MemberGroup:
    """Some members' networks, objective, optimiser and place in the data."""

    def __init__(
        self,
        config: TrainConfig,
        network: EnsembleNetwork,
        data: TrainingData,
        first: int = 0,
        samples: Tensor | None = None,
    ):
        """Draw the members' weights and their resamples of the data.

        Args:
            config: how to train; ``config.members`` is the size of the whole ensemble.
            network: the E members, changed in place.
            data: on the network's device and in its dtype.
            first: the place of the group's first member in the ensemble.
            samples: which samples each member learns from, [E, any number]; absent, a bootstrap of
                all of them or all, as configured.
        """
        self.config = config
        self.network = network
        self.data = data
        inputs, targets = data.inputs, data.targets
        self.members = range(first, first + network.members)
        draw_weights(config, network, first)
        self.objective = make_objective(config)
        seeds = [derived_seed(config.seed, OBJECTIVE, member) for member in self.members]
        self.objective.attach(network, inputs, targets, seeds)
        self.objective.to(inputs.device)
        self.optimizer = Adam(
            p for part in (network, self.objective) for p in part.parameters() if p.requires_grad
        )
        self.samples = self._resample() if samples is None else samples
        self.batch_size = min(config.batch_size, self.samples.shape[1])
        self.update = 0
        self._order, self._epoch = self.samples, -1
        # Sums over some updates since the last validation: their number, NLL and squared errors.
        self.totals = inputs.new_zeros(network.members, 2 + targets.shape[1])

    def advance(self, updates: int) -> None:
        """Make gradient updates of every member, each on its own next minibatch."""
        for _ in range(updates):
            start = self._begin_update() * self.batch_size
            self._step(self._order[:, start : start + self.batch_size])
            self.update += 1
        if self.totals.is_cuda:
            # Who asked wants to know how long it took.
            torch.cuda.synchronize(self.totals.device)

    @torch.no_grad()
    def validate(self) -> GroupMeasures:
        """Measure the members on the validation data, and begin to sum the train measures anew.

        With a head of kind ``mean`` the squared errors of validation become the members' variance.
        """
        squared_error, log_prob = self._validation_means()
        if self.network.head.kind == "mean":
            variance = squared_error.clamp(MIN_VARIANCE, MAX_VARIANCE)
            self.network.residual_variance.copy_(variance.unsqueeze(1))
            _, log_prob = self._validation_means()
        train = self.totals[:, 1:] / self.totals[:, :1]
        self.totals.zero_()
        return GroupMeasures(-log_prob, squared_error, train[:, 0], train[:, 1:])

    def state(self) -> dict[str, Tensor]:
        """Return all that `load` needs; the members come first in every tensor."""
        state = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        state |= {f"objective.{name}": value for name, value in self.objective.state_dict().items()}
        state |= {f"optimizer.{name}": value for name, value in self.optimizer.state().items()}
        return state | {"totals": self.totals}

    def load(self, state: Mapping[str, Tensor], update: int) -> None:
        """Go on from the `state` after so many updates.

        Raises:
            KeyError: a part is missing.
            RuntimeError: a part has another shape.
        """
        state = {name: value.to(self.data.inputs.device) for name, value in state.items()}

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value
                for name, value in state.items()
                if name.startswith(prefix)
            }

        self.network.load_state_dict(part("network."))
        self.objective.load_state_dict(part("objective."))
        self.totals = state["totals"].clone()
        self.optimizer.load(part("optimizer."), update)
        self.update, self._epoch = update, -1

    def _begin_update(self) -> int:
        """Return which minibatch of its epoch is next; make the epoch's order where it begins."""
        epoch, batch = divmod(self.update, self.samples.shape[1] // self.batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._epoch_order(epoch)
            self.objective.begin_epoch(epoch)
        return batch

    def _step(self, rows: Tensor) -> None:
        # One copy of what is a part of longer rows, not one for each of the two.
        index = rows.flatten()
        inputs, target = (
            values.index_select(0, index).view(*rows.shape, -1)
            for values in (self.data.inputs, self.data.targets)
        )
        with torch.autocast(
            target.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"
        ):
            outputs = self.network.outputs(inputs)
        prediction = self.network.distribution(outputs.to(target.dtype))
        loss = self.objective.loss(prediction, target, rows).sum()
        gradients = torch.autograd.grad(loss, self.optimizer.parameters)
        self.optimizer.step(gradients, self._learning_rate())
        if self.update % self.config.validate_every % _MEASURE_EVERY == 0:
            self._measure(prediction, target)

    def _validation_means(self) -> tuple[Tensor, Tensor]:
        inputs, targets = self.data.validation_inputs, self.data.validation_targets
        squared_error = self.totals.new_zeros(targets.shape[1])
        log_prob = self.totals.new_zeros(())
        for chunk, target in zip(
            torch.split(inputs, _CHUNK), torch.split(targets, _CHUNK), strict=True
        ):
            prediction = self.network(chunk)
            squared_error = squared_error + (prediction.mean - target).square().sum(1)
            log_prob = log_prob + prediction.log_prob(target).sum(1)
        return squared_error / len(inputs), log_prob / len(inputs)

    @torch.no_grad()
    def _measure(self, prediction: Distribution, target: Tensor) -> None:
        nll = -prediction.log_prob(target).mean(1)
        squared_error = (prediction.mean - target).square().mean(1)
        self.totals[:, 0] += 1
        self.totals[:, 1] += nll
        self.totals[:, 2:] += squared_error

    def _learning_rate(self) -> float:
        share = 1.0
        if self.config.schedule == "cosine":
            share = 0.5 + 0.5 * math.cos(math.pi * self.update / self.config.max_updates)
        return self.config.learning_rate * share

    def _resample(self) -> Tensor:
        """Return the samples that each member learns from, [E, M]."""
        count, device = len(self.data.inputs), self.data.inputs.device
        if not self.config.bootstrap or self.config.members == 1:
            return torch.arange(count, device=device).expand(len(self.members), count)
        generators = [
            derived_generator(self.config.seed, RESAMPLE, member, device=device)
            for member in self.members
        ]
        return bootstrap(count, generators)

    def _epoch_order(self, epoch: int) -> Tensor:
        """Return each member's samples in this epoch's order, [E, M]."""
        order = torch.empty_like(self.samples, memory_format=torch.contiguous_format)
        for row, member in enumerate(self.members):
            generator = derived_generator(
                self.config.seed, SHUFFLE, member, epoch, device=self.data.inputs.device
            )
            shuffle = torch.randperm(
                order.shape[1], generator=generator, device=self.data.inputs.device
            )
            torch.index_select(self.samples[row], 0, shuffle, out=order[row])
        return order


def draw_weights(config: TrainConfig, network: EnsembleNetwork, first: int) -> None:
    """Draw the initial weights of the ensemble's members from ``first`` on."""
    members = range(first, first + network.members)
    network.initialize(
        config.initialization,
        [derived_generator(config.seed, WEIGHTS, member) for member in members],
    )


def bootstrap(transitions: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw each member's resample with replacement, from its own generator, as ids [E, M]."""
    return torch.stack(
        [
            torch.randint(transitions, (transitions,), generator=generator, device=generator.device)
            for generator in generators
        ]
    )
