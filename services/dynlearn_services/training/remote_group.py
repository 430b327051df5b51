"""RemoteGroup: ensemble members that train in a Ray worker, on a CPU or GPU of its own.

Shapes: E members of the group.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.errors import Unavailable
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.training.group import GroupFactory, GroupMeasures
from dynlearn.training.member_group import MemberGroup, draw_weights
from dynlearn.training.training_data import TrainingData
from dynlearn_services.ray_cluster import fetch, ray_cluster, reason_of_death

if TYPE_CHECKING:
    from ray import ObjectRef

_TRIES_AFTER_DEATH = 10


class _GroupWorker:
    """The actor: one `MemberGroup`, on the worker's own device."""

    def __init__(
        self,
        config: TrainConfig,
        network: EnsembleNetwork,
        data: TrainingData,
        first: int,
        device: torch.device,
    ):
        self._arguments = (config, network, data, first, device)

    def prepare(self) -> None:
        """Make the group: not in the constructor, whose errors cannot be told from a death."""
        config, network, data, first, device = self._arguments
        torch.set_num_threads(1)
        on_device = TrainingData(*(tensor.to(device) for tensor in vars(data).values()))
        self.group = MemberGroup(config, network.to(device), on_device, first)

    def advance(self, updates: int) -> None:
        self.group.advance(updates)

    def validate(self) -> GroupMeasures:
        return GroupMeasures(*(tensor.cpu() for tensor in self.group.validate()))

    def weights(self) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in self.group.network.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in self.group.state().items()}

    def load(self, state: Mapping[str, Tensor], update: int) -> None:
        self.group.load(state, update)

    def process(self) -> int:
        return os.getpid()


class RemoteGroup:
    """The `dynlearn.training.group.Group` of a Ray worker.

    A worker whose process dies is started again from the last state that was asked for, and does
    again what came after it: to the same bits, since a group's training is determined.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: EnsembleNetwork,
        data: ObjectRef[TrainingData],
        first: int,
        gpus: float,
    ):
        """Start the worker; ``network`` gets its weights at the start and at each validation.

        ``gpus`` is its share of one; without any it trains on a CPU.

        Raises:
            Unavailable: Ray has no room for the worker, or it dies again and again.
        """
        import ray

        self._network = network
        device = torch.device("cuda" if gpus else "cpu")
        # A copy: the weights of a view would bring the whole ensemble's along.
        self._arguments = (config, copy.deepcopy(network), data, first, device)
        self._actor_class: Any = ray.remote(num_cpus=1, num_gpus=gpus)(_GroupWorker)
        self._start()
        self._update = 0
        self._saved: tuple[dict[str, Tensor], int] | None = None
        self._changes: list[tuple[str, tuple[Any, ...]]] = []
        # What the worker draws, drawn here too, so as not to wait for it.
        draw_weights(config, network, first)

    def advance(self, updates: int) -> None:
        """Make gradient updates of every member, each on its own next minibatch."""
        self._change("advance", updates)
        self._update += updates

    def validate(self) -> GroupMeasures:
        """Measure the members and fetch their weights."""
        measures: GroupMeasures = self._change("validate")
        self._fetch_weights()
        return measures

    def state(self) -> dict[str, Tensor]:
        """Return all that `load` needs; the members come first in every tensor."""
        state: dict[str, Tensor] = self._call("state")
        self._saved, self._changes = (state, self._update), []
        return state

    def load(self, state: Mapping[str, Tensor], update: int) -> None:
        """Go on from the `state` after so many updates."""
        self._saved, self._changes, self._update = (dict(state), update), [], update
        self._call("load", *self._saved)
        self._fetch_weights()

    def process(self) -> int:
        """Return the worker's process id."""
        pid: int = self._call("process")
        return pid

    def close(self) -> None:
        """End the worker."""
        import ray

        ray.kill(self._worker)

    def _fetch_weights(self) -> None:
        self._network.load_state_dict(self._call("weights"))

    def _change(self, method: str, *arguments: Any) -> Any:
        result = self._call(method, *arguments)
        self._changes.append((method, arguments))
        return result

    def _call(self, method: str, *arguments: Any) -> Any:
        """Return a method's result, from a new worker where the old one dies."""
        from ray.exceptions import RayActorError

        for _ in range(_TRIES_AFTER_DEATH):
            try:
                return self._ask(method, *arguments)
            except RayActorError as error:
                reason = reason_of_death(error)
            self._start()
            with suppress(RayActorError):
                self._repeat()
        raise Unavailable(
            f"expected training workers that stay alive, got one that died {_TRIES_AFTER_DEATH} "
            f"times: {reason}; go on with --resume on machines with more memory"
        )

    def _start(self) -> None:
        self._worker: Any = self._actor_class.remote(*self._arguments)
        # Not waited for here: workers start side by side.
        self._prepared = self._worker.prepare.remote()

    def _repeat(self) -> None:
        """Bring a new worker to where the old one was."""
        if self._saved is not None:
            self._ask("load", *self._saved)
        for method, arguments in self._changes:
            self._ask(method, *arguments)

    def _ask(self, method: str, *arguments: Any) -> Any:
        fetch(self._prepared)
        return fetch(getattr(self._worker, method).remote(*arguments))


@contextmanager
def remote_groups(config: TrainConfig) -> Iterator[GroupFactory]:
    """Give what makes each group of members in a Ray worker, as long as the context lasts.

    Args:
        config: with ``workers``, how many groups there will be, and the kind of device on which
            each trains: a GPU, shared where there are fewer than workers, or one CPU thread.

    Raises:
        Unavailable: Ray cannot be reached or has no room.
    """
    with ray_cluster(config.workers):
        import ray

        room: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = _gpus_each(config, room)
        groups: list[RemoteGroup] = []
        stored: list[ObjectRef[TrainingData]] = []

        def make(
            config: TrainConfig, network: EnsembleNetwork, data: TrainingData, first: int
        ) -> RemoteGroup:
            if not stored:
                stored.append(ray.put(data))
            groups.append(RemoteGroup(config, network, stored[0], first, gpus))
            return groups[-1]

        try:
            yield make
        finally:
            for group in groups:
                group.close()


def _gpus_each(config: TrainConfig, room: Mapping[str, float]) -> float:
    """Return each worker's share of a GPU in a cluster with such resources: none on CPUs.

    Raises:
        Unavailable: the cluster has no room.
    """
    gpus = int(room.get("GPU", 0))
    if config.device == "cuda" and gpus == 0:
        raise Unavailable(
            "expected a Ray cluster with a GPU, got none; train with --device cpu or auto"
        )
    if room.get("CPU", 0) < config.workers:
        raise Unavailable(
            f"expected a Ray cluster with {config.workers} CPUs for {config.workers} training "
            f"workers, got {room.get('CPU', 0):g}; take fewer workers"
        )
    if config.device == "cpu" or gpus == 0:
        return 0.0
    # Rounded down to what Ray counts by, so that together they are no more than one.
    return 10_000 // math.ceil(config.workers / gpus) / 10_000
