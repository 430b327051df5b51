"""Collecting a dataset: workers play blocks of episodes, and this process alone writes.

The blocks follow from the options, and a block's episodes from its indices; so neither the number
of workers nor what befalls them shows in the dataset.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import metadata

import numpy as np
from pydantic import JsonValue, TypeAdapter

from dynlearn.config import CollectConfig
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.store import DatasetHeader, EpisodeStore
from dynlearn_envs.environments import describe_spaces, make_environment, make_vector_environment
from dynlearn_envs.policies import make_policy
from dynlearn_services.collection.measures import Measures
from dynlearn_services.collection.worker_pool import play_blocks

_VERSIONED_PACKAGES = ("dynlearn", "numpy", "gymnasium", "gymnasium-robotics", "mujoco")
_STEPS_IN_BLOCK = 512
"""About what a worker that dies loses, where episodes are played one by one."""
_EPISODES_IN_BLOCK = 512
"""Where they are stepped together, which is fast only with many."""
_STEPS_AT_ONCE = 2**18
"""At most, of a block whose episodes are stepped together; they are in memory at once."""
_BLOCKS_IN_SHARD = 4
"""At least, so that a dataset of one shard keeps a few workers busy."""
_SECONDS_UNSAVED = 5.0
"""After which the episodes of a shard that is not whole yet are kept aside on the disk."""


@dataclass(frozen=True)
class CollectProgress:
    """How far a collection has come.

    Attributes:
        episodes: how many there are, those from before a resumption included.
        planned: how many there will be.
        steps: transitions played now.
        steps_per_s: at which they arrive.
        contact_share: of the transitions played now, if the environment's task knows contact.
        success_share: of the episodes played now, those whose last transition ends in success, if
            the environment has a task.
    """

    episodes: int
    planned: int
    steps: int
    steps_per_s: float
    contact_share: float | None
    success_share: float | None


def collect(
    config: CollectConfig,
    uri: str,
    on_progress: Callable[[CollectProgress], None] = lambda progress: None,
) -> DatasetHeader:
    """Collect a dataset; return its header.

    Interrupted, it leaves behind what the same call with ``resume`` goes on with; if that is
    nothing, it leaves nothing.

    Args:
        config: what to collect, and with how many workers.
        uri: where to: a local path, or a URI such as ``s3://bucket/name``.
        on_progress: called as episodes arrive.

    Raises:
        NotFound: there is no such environment.
        InvalidInput: the options cannot be followed, or there is such a dataset already.
        CorruptData: the environment gave something other than its spaces say, or NaN.
        Unavailable: Ray cannot be reached, or its workers die again and again.
    """
    header, max_steps = plan_dataset(config)
    size = block_size(config, max_steps)
    store = EpisodeStore.create(uri, header, resume=config.resume)
    try:
        writer = _Writer(store, on_progress)
    except BaseException:
        store.abandon_if_empty()
        raise
    try:
        with closing(play_blocks(config, max_steps, writer.missing_blocks(size))) as tables:
            for table in tables:
                writer.take(table)
    except BaseException:
        writer.save()
        store.abandon_if_empty()
        raise
    return store.finish()


def plan_dataset(config: CollectConfig) -> tuple[DatasetHeader, int]:
    """Return the header that the dataset begins with, and its longest possible episode in steps.

    Raises:
        NotFound: there is no such environment.
        InvalidInput: environment or policy cannot be made, or nothing limits the episodes.
    """
    environment = make_environment(config.env, config.max_steps)
    observation_space, action_space = describe_spaces(environment)
    make_policy(config.policy, config.env, action_space, config.noise, config.random_share)
    assert environment.spec is not None
    max_steps = environment.spec.max_episode_steps
    assert max_steps is not None
    environment.close()
    # The dataset's name is where it is, not what it is; and a URI may hold a password.
    content = {name: value for name, value in config.content().items() if name != "dataset"}
    header = DatasetHeader(
        environment=config.env,
        versions=_versions(),
        observation_space=observation_space,
        action_space=action_space,
        policy=config.policy,
        config=TypeAdapter(dict[str, JsonValue]).validate_python(content),
        planned=config.episodes,
        episodes_per_shard=config.episodes_per_shard,
    )
    return header, max_steps


def block_size(config: CollectConfig, max_steps: int) -> int:
    """Return how many episodes a worker plays at a time; it depends on the content alone."""
    if make_vector_environment(config.env, 1, max_steps) is None:
        size = _STEPS_IN_BLOCK // max_steps
    else:
        size = min(_EPISODES_IN_BLOCK, _STEPS_AT_ONCE // max_steps)
    in_shard = min(config.episodes, config.episodes_per_shard)
    return max(1, min(size, -(-in_shard // _BLOCKS_IN_SHARD)))


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _VERSIONED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


class _Shard:
    """The episodes that there are of a shard that is not whole yet."""

    def __init__(self, indices: range, kept: list[EpisodeTable]):
        self.indices = indices
        self.tables: list[EpisodeTable] = []
        self.present: set[int] = set()
        for table in kept:
            episodes = set(table.indices.tolist())
            if episodes <= set(indices) and self.present.isdisjoint(episodes):
                self.add(table)
        self.saved = len(self.tables)

    def add(self, table: EpisodeTable) -> None:
        self.tables.append(table)
        self.present.update(table.indices.tolist())

    def whole(self) -> EpisodeTable | None:
        """Return all its episodes in order, once they are there."""
        if len(self.present) < len(self.indices):
            return None
        table = EpisodeTable.concatenate(self.tables)
        return table.select(np.argsort(table.indices))


class _Writer:
    """Puts blocks together to shards, and tells how far it is."""

    def __init__(self, store: EpisodeStore, on_progress: Callable[[CollectProgress], None]):
        self._store = store
        self._on_progress = on_progress
        self._measures = Measures(store.header.environment)
        self._shards = {
            shard: _Shard(store.header.shard_indices(shard), store.aside(shard))
            for shard in store.missing_shards()
        }
        self._episodes = store.header.planned - sum(
            len(shard.indices) - len(shard.present) for shard in self._shards.values()
        )
        self._steps = self._first_steps = 0
        self._began = self._last_save = time.monotonic()

    def missing_blocks(self, size: int) -> list[range]:
        """Return the blocks of at most ``size`` episodes that are not there yet."""
        blocks = [
            shard.indices[first : first + size]
            for shard in self._shards.values()
            for first in range(0, len(shard.indices), size)
        ]
        present = set().union(*(shard.present for shard in self._shards.values()))
        return [block for block in blocks if block.start not in present]

    def take(self, table: EpisodeTable) -> None:
        """Take a block; write what becomes whole by it."""
        number = int(table.indices[0]) // self._store.header.episodes_per_shard
        shard = self._shards[number]
        shard.add(table)
        whole = shard.whole()
        if whole is not None:
            self._store.append(whole)
            del self._shards[number]
        if time.monotonic() - self._last_save > _SECONDS_UNSAVED:
            self.save()
        self._measures.add(table)
        self._report(len(table), table.steps)

    def save(self) -> None:
        """Keep aside what is not whole yet."""
        for shard in self._shards.values():
            if len(shard.tables) > shard.saved:
                self._store.put_aside(EpisodeTable.concatenate(shard.tables[shard.saved :]))
                shard.saved = len(shard.tables)
        self._last_save = time.monotonic()

    def _report(self, episodes: int, steps: int) -> None:
        now = time.monotonic()
        if not self._steps:
            self._first_steps, self._first_arrival = steps, now
        self._episodes += episodes
        self._steps += steps
        # From the first block on, so that the start of Ray does not count.
        rate = (
            (self._steps - self._first_steps) / (now - self._first_arrival)
            if self._steps > self._first_steps
            else steps / (now - self._began)
        )
        self._on_progress(
            CollectProgress(
                self._episodes,
                self._store.header.planned,
                self._steps,
                rate,
                self._measures.contact_share,
                self._measures.success_share,
            )
        )
