"""Ray workers that play blocks of episodes, a few blocks ahead of whoever takes the results."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dynlearn.config import CollectConfig
from dynlearn.errors import Unavailable
from dynlearn_services.collection.recorder import Played
from dynlearn_services.collection.worker import CollectionWorker
from dynlearn_services.ray_cluster import fetch, ray_cluster, reason_of_death

if TYPE_CHECKING:
    from ray import ObjectRef

_BLOCKS_AT_WORKER = 2
"""One being played, one waiting, so that a worker need not wait for the writer."""
_BLOCKS_AHEAD = 8
"""For each worker: how far the newest block may be ahead of the oldest one that is not done."""
_TRIES_AFTER_DEATH = 10


def play_blocks(
    config: CollectConfig, max_steps: int, blocks: Sequence[range]
) -> Generator[Played]:
    """Give the episodes of each block of indices as it is done, in any order.

    A worker whose process dies is started again and plays its blocks again.

    Args:
        config: what to play, and with how many workers.
        max_steps: the longest episode.
        blocks: the indices of the episodes, a block at a time.

    Raises:
        CorruptData: the environment gave something other than its spaces say, or NaN.
        Unavailable: Ray cannot be reached, or a worker dies again and again.
    """
    if not blocks:
        return
    with ray_cluster(config.workers):
        import ray

        room = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
        actor: Any = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=_TRIES_AFTER_DEATH)(
            CollectionWorker
        )
        import_paths = [os.path.abspath(path) for path in sys.path]
        pool = [
            actor.remote(config, max_steps, import_paths)
            for _ in range(max(1, min(config.workers, room, len(blocks))))
        ]
        free = deque(pool * _BLOCKS_AT_WORKER)
        unplayed = deque(range(len(blocks)))
        running: dict[ObjectRef[Any], tuple[Any, int]] = {}
        try:
            while unplayed or running:
                undone = [position for _, position in running.values()] or unplayed
                limit = min(undone) + _BLOCKS_AHEAD * len(pool)
                while free and unplayed and unplayed[0] < limit:
                    worker, position = free.popleft(), unplayed.popleft()
                    running[worker.play.remote(blocks[position])] = worker, position
                done, _ = ray.wait(list(running), num_returns=1)
                free.append(running.pop(done[0])[0])
                yield _fetch(done[0])
        finally:
            for worker in pool:
                ray.kill(worker)


def _fetch(block: ObjectRef[Any]) -> Played:
    from ray.exceptions import RayActorError

    try:
        table, successes = fetch(block)
    except RayActorError as error:
        raise Unavailable(
            f"expected workers that stay alive, got one that died {_TRIES_AFTER_DEATH + 1} times "
            f"over the same episodes: {reason_of_death(error)}"
        ) from error
    # A copy: what Ray gives lies in its shared memory, which is small.
    return Played(table.select(np.arange(len(table))), successes)
