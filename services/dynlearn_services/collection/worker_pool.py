"""Ray workers that play blocks of episodes, a few blocks ahead of whoever takes the results."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dynlearn.config import CollectConfig
from dynlearn_services.collection.blocks import Block, Loss, Task
from dynlearn_services.collection.lookout import Lookout
from dynlearn_services.collection.recorder import Played
from dynlearn_services.collection.watch import forget, last_sighting
from dynlearn_services.collection.worker import CollectionWorker
from dynlearn_services.ray_cluster import (
    fetch,
    ray_cluster,
    reason_of_death,
    require_nodes,
)

if TYPE_CHECKING:
    from ray import ObjectRef

_TASKS_AT_WORKER = 2
"""One being played, one waiting, so that a worker need not wait for the writer."""
_BLOCKS_AHEAD = 8
"""For each worker: how far the newest block may be ahead of the oldest one that is not done."""
_SECONDS_OF_SILENCE = 10.0
"""After which it is asked whether anybody is there at all."""

_DEATH = "the death of its process"

_log = logging.getLogger(__name__)


def play_blocks(
    config: CollectConfig, max_steps: int, blocks: Sequence[range]
) -> Generator[Played]:
    """Give the episodes of each block of indices as it is done, in any order.

    A worker whose process dies is replaced, and its blocks are played again.

    Args:
        config: what to play, and with how many workers.
        max_steps: the longest episode.
        blocks: the indices of the episodes, a block at a time.

    Raises:
        CorruptData: the environment failed, and the collection is to stop there.
        Unavailable: Ray cannot be reached, or a worker dies again and again.
    """
    if not blocks:
        return
    with ray_cluster(config.workers):
        import ray

        room = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
        pool = _Pool(config, max_steps, max(1, min(config.workers, room, len(blocks))))
        try:
            yield from pool.play(blocks)
        finally:
            pool.close()


@dataclass
class _Worker:
    """A worker's process, and its tasks with what they will give; it plays the first of them."""

    actor: Any
    key: str
    lookout: Lookout
    tasks: deque[tuple[ObjectRef[Any], Task]] = field(default_factory=deque)


class _Pool:
    def __init__(self, config: CollectConfig, max_steps: int, size: int):
        self._config, self._max_steps = config, max_steps
        self._name, self._made = secrets.token_hex(8), 0
        self._import_paths = [os.path.abspath(path) for path in sys.path]
        self._heard = time.monotonic()
        self._workers = [self._make() for _ in range(size)]

    def play(self, blocks: Sequence[range]) -> Iterator[Played]:
        fresh = (Task(Block(position, block), block) for position, block in enumerate(blocks))
        unplayed: deque[Task] = deque()
        while self._hand_out(unplayed, fresh):
            for task, outcome in self._wait():
                if outcome is None:
                    unplayed.appendleft(task)
                elif isinstance(outcome, Loss):
                    unplayed.extendleft(reversed(task.after(outcome, self._config)))
                else:
                    task.block.parts.append(outcome)
                    if whole := task.block.whole():
                        yield whole

    def close(self) -> None:
        for worker in self._workers:
            self._end(worker)

    def _make(self) -> _Worker:
        import ray

        actor: Any = ray.remote(num_cpus=1)(CollectionWorker)
        key = f"{self._name}.{self._made}"
        self._made += 1
        handle = actor.remote(self._config, self._max_steps, self._import_paths, key)
        return _Worker(handle, key, Lookout(self._config, key))

    def _end(self, worker: _Worker) -> None:
        import ray

        ray.kill(worker.actor)
        forget(worker.key)

    def _hand_out(self, unplayed: deque[Task], fresh: Iterator[Task]) -> bool:
        """Give workers what is to be played again, then what is fresh; is anything played?"""
        running = [task.block.position for one in self._workers for _, task in one.tasks]
        worker = min(self._workers, key=lambda worker: len(worker.tasks))
        while len(worker.tasks) < _TASKS_AT_WORKER:
            unplayed.extend(islice(fresh, 1 - bool(unplayed)))
            if not unplayed:
                break
            position = unplayed[0].block.position
            if position >= min(running, default=position) + _BLOCKS_AHEAD * len(self._workers):
                break
            task = unplayed.popleft()
            if not worker.tasks:
                worker.lookout.begin()
            given = worker.actor.play.remote(task.indices, task.condemned, task.carefully)
            worker.tasks.append((given, task))
            running.append(position)
            worker = min(self._workers, key=lambda worker: len(worker.tasks))
        return any(worker.tasks for worker in self._workers)

    def _wait(self) -> Iterator[tuple[Task, Played | Loss | None]]:
        """Give each task that has come to an end; None where it was not begun."""
        import ray
        from ray.exceptions import RayActorError

        first = {worker.tasks[0][0]: worker for worker in self._workers if worker.tasks}
        pause = self._workers[0].lookout.period
        done, _ = ray.wait(list(first), num_returns=1, timeout=pause)
        if not done and time.monotonic() - self._heard > _SECONDS_OF_SILENCE:
            self._heard = time.monotonic()
            require_nodes()
        for block in done:
            self._heard = time.monotonic()
            worker = first[block]
            try:
                table, *rest = fetch(block)
                # A copy: what Ray gives lies in its shared memory, which is small.
                played = Played(table.select(np.arange(len(table))), *rest)
            except RayActorError as error:
                sighting = last_sighting(worker.key)
                loss = Loss(_DEATH, sighting.place if sighting else None)
                _log.debug("a worker was lost: %s", reason_of_death(error))
                yield from self._replace(worker, loss)
            else:
                task = worker.tasks.popleft()[1]
                worker.lookout.begin()
                yield task, played
        for worker in list(self._workers):
            if worker.tasks and (found := worker.lookout.look(worker.tasks[0][1])):
                yield from self._replace(worker, found)

    def _replace(self, worker: _Worker, loss: Loss) -> Iterator[tuple[Task, Loss | None]]:
        with suppress(Exception):
            self._end(worker)
        self._workers[self._workers.index(worker)] = self._make()
        (_, task), *others = worker.tasks
        # The first was being played, and alone is to blame.
        yield from ((other, None) for _, other in reversed(others))
        yield task, loss
