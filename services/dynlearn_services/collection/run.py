"""Collecting a dataset: workers play blocks of episodes, and this process alone writes.

The blocks follow from the options, and a block's episodes from its indices; so neither the number
of workers nor what befalls them shows in the dataset.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable
from contextlib import closing, suppress
from importlib import metadata

from pydantic import JsonValue, TypeAdapter

from dynlearn.config import CollectConfig
from dynlearn.data.header import DatasetHeader
from dynlearn.data.writer import EpisodeWriter
from dynlearn.spaces import obstacle_to_planning
from dynlearn_envs.environments import (
    close_environment,
    describe_spaces,
    make_environment,
    make_vector_environment,
)
from dynlearn_envs.policies import make_policy
from dynlearn_services.collection.worker_pool import play_blocks
from dynlearn_services.collection.writer import CollectProgress, ShardWriter

_VERSIONED_PACKAGES = ("dynlearn", "numpy", "gymnasium", "gymnasium-robotics", "mujoco")
_STEPS_IN_BLOCK = 512
"""About what a worker that dies loses, where episodes are played one by one."""
_EPISODES_IN_BLOCK = 512
"""Where they are stepped together, which is fast only with many."""
_STEPS_AT_ONCE = 2**18
"""At most, of a block whose episodes are stepped together; they are in memory at once."""
_BLOCKS_IN_SHARD = 4
"""At least, so that a dataset of one shard keeps a few workers busy."""

_log = logging.getLogger(__name__)


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
        Busy: another process writes to it.
        CorruptData: the environment failed, or gave something other than its spaces say, or NaN,
            and the collection is to stop there.
        Unavailable: Ray cannot be reached, or its workers die again and again.
    """
    header, max_steps = plan_dataset(config)
    if obstacle := obstacle_to_planning(header.action_space):
        _log.info("note: `dynlearn plan` will not act in %s: %s", config.env, obstacle)
    size = block_size(config, max_steps)
    with EpisodeWriter.create(uri, header, resume=config.resume) as dataset:
        try:
            writer = ShardWriter(dataset, on_progress)
        except BaseException:
            dataset.abandon_if_empty()
            raise
        try:
            with closing(play_blocks(config, max_steps, writer.missing_blocks(size))) as blocks:
                for played in blocks:
                    writer.take(played)
        except BaseException:
            writer.save()
            dataset.abandon_if_empty()
            raise
        finished = dataset.finish()
    if finished.faults:
        _log.warning(
            "warning: of %d episodes, %s; dynlearn datasets show names them",
            finished.episodes,
            finished.faults,
        )
    return finished


def plan_dataset(config: CollectConfig) -> tuple[DatasetHeader, int]:
    """Return the header that the dataset begins with, and its longest possible episode in steps.

    Raises:
        NotFound: there is no such environment.
        InvalidInput: environment or policy cannot be made, or nothing limits the episodes.
    """
    environment = make_environment(config.env, config.max_steps, kwargs=config.env_kwargs)
    observation_space, action_space = describe_spaces(environment)
    make_policy(config.policy, config.env, action_space, config.noise, config.random_share)
    assert environment.spec is not None
    max_steps = environment.spec.max_episode_steps
    assert max_steps is not None
    close_environment(environment)
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
    if make_vector_environment(config.env, 1, max_steps, config.env_kwargs) is None:
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
