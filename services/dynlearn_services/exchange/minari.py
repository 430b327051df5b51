"""Datasets to and from Minari, the exchange format of offline reinforcement learning.

Minari keeps its datasets under MINARI_DATASETS_PATH, else ``~/.minari/datasets``.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Any

import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.dataset.episode_data import EpisodeData
from minari.dataset.minari_dataset import MinariDataset, parse_dataset_id
from minari.storage import get_dataset_path
from numpy.typing import NDArray

from dynlearn.adapters.gymnasium_spaces import (
    describe_action,
    describe_observation,
    to_gymnasium,
)
from dynlearn.data.episodes import Episode
from dynlearn.data.header import DatasetHeader, read_header
from dynlearn.data.store import EpisodeStore
from dynlearn.data.writer import EpisodeWriter
from dynlearn.errors import CorruptData, InvalidInput, NotFound, nearest
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn_envs.environments import Environment, make_environment

_EPISODES_AT_ONCE = 500
_UNKNOWN = "unknown"


def export_minari(store: EpisodeStore, dataset_id: str) -> None:
    """Write a dataset as a Minari dataset, to be opened with ``minari.load_dataset``.

    Args:
        store: a finished dataset.
        dataset_id: a new Minari id, such as ``slide/random-v0``.

    Raises:
        InvalidInput: it is no Minari id, such a dataset exists, or it cannot be written.
    """
    with _minari():
        path = _path(dataset_id)
        if path.exists():
            raise InvalidInput(
                f"expected the id of a new Minari dataset, got {dataset_id}, which exists in {path}"
            )
        buffers = (_to_buffer(episode) for episode in store.episodes())
        try:
            exported = minari.create_dataset_from_buffers(
                dataset_id,
                list(islice(buffers, _EPISODES_AT_ONCE)),
                env=_find_environment(store.header),
                observation_space=to_gymnasium(store.header.observation_space),
                action_space=to_gymnasium(store.header.action_space),
                algorithm_name=store.header.policy,
                description=_describe(store.header),
                data_format="hdf5",
            )
            while some := list(islice(buffers, _EPISODES_AT_ONCE)):
                exported.update_dataset_from_buffer(some)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise


def import_minari(dataset_id: str, uri: str) -> DatasetHeader:
    """Copy a local Minari dataset; return the copy's header.

    Args:
        dataset_id: a Minari id, such as ``mujoco/hopper/expert-v0``.
        uri: where to: a local path, or a URI such as ``s3://bucket/name``.

    Raises:
        NotFound: there is no such Minari dataset.
        InvalidInput: its spaces are of other kinds, or there is a dataset already.
        CorruptData: it cannot be read, or holds other arrays than its spaces say, or NaN.
    """
    with _minari():
        if not (_path(dataset_id) / "data").is_dir():
            raise NotFound(
                f"expected the id of a local Minari dataset, got {dataset_id!r}; "
                f"{nearest(dataset_id, minari.list_local_datasets())}"
            )
        try:
            source = minari.load_dataset(dataset_id)
            header = _plan_import(dataset_id, source)
            store = EpisodeWriter.create(uri, header, resume=_is_cut_off(uri))
            try:
                for shard in store.missing_shards():
                    store.append(list(_read_episodes(source, header.shard_indices(shard))))
            except BaseException:
                store.abandon_if_empty()
                raise
        except (OSError, KeyError, ValueError, AssertionError) as error:
            reason = f"{type(error).__name__}: {shorten(str(error), 200)}"
            raise CorruptData(
                f"expected a whole Minari dataset in {_path(dataset_id)}, got {reason}"
            ) from error
    return store.finish()


@contextmanager
def _minari() -> Iterator[None]:
    """Silence Minari's advice to dataset authors; make one line of what fails on the disk."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="minari")
            yield
    except OSError as error:
        raise InvalidInput(
            f"expected Minari's folder to be readable and writable, got {error}; "
            "name another by MINARI_DATASETS_PATH"
        ) from error


def _path(dataset_id: str) -> Path:
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"expected a Minari id such as slide/random-v0, got {dataset_id!r}"
        ) from error
    return Path(get_dataset_path(dataset_id))


def _find_environment(header: DatasetHeader) -> Environment | None:
    """Return the environment of a dataset where it is installed, for others to recover it."""
    max_steps = header.config.get("max_steps")
    try:
        return make_environment(
            header.environment, max_steps if isinstance(max_steps, int) else None
        )
    except InvalidInput:
        return None


def _describe(header: DatasetHeader) -> str:
    made = {"environment": header.environment, "config": header.config, "versions": header.versions}
    return f"Collected with dynlearn: {json.dumps(made)}"


def _to_buffer(episode: Episode) -> EpisodeBuffer:
    observations: Any = episode.observations
    if episode.achieved_goals is not None:
        observations = {
            "observation": episode.observations,
            "achieved_goal": episode.achieved_goals,
            "desired_goal": episode.desired_goals,
        }
    columns: dict[str, Any] = {
        "observations": observations,
        "actions": episode.actions,
        "rewards": episode.rewards,
        "terminations": episode.terminated,
        "truncations": episode.truncated,
    }
    return EpisodeBuffer(id=episode.index, seed=episode.seed, **columns)


def _plan_import(dataset_id: str, source: MinariDataset) -> DatasetHeader:
    observation_space = describe_observation(source.observation_space)
    action_space = describe_action(source.action_space)
    if not source.total_episodes:
        raise CorruptData(f"expected episodes in the Minari dataset {dataset_id}, got none")
    # Recorders may keep another dtype than the space has; the arrays' own is what counts.
    first = _to_episode(source[0], 0, None)
    observation = _with_dtype(observation_space.observation, first.observations)
    goal = observation_space.goal
    if goal is not None and first.desired_goals is not None:
        goal = _with_dtype(goal, first.desired_goals)
    if isinstance(action_space, BoxSpace):
        action_space = _with_dtype(action_space, first.actions)
    return DatasetHeader(
        environment=source.env_spec.id if source.env_spec else _UNKNOWN,
        versions={"minari": source.minari_version},
        observation_space=ObservationSpace(observation=observation, goal=goal),
        action_space=action_space,
        policy=source.storage.metadata.get("algorithm_name", _UNKNOWN),
        config={"minari_dataset": dataset_id},
        planned=source.total_episodes,
        episodes_per_shard=_EPISODES_AT_ONCE,
    )


def _with_dtype(space: BoxSpace, values: NDArray[Any]) -> BoxSpace:
    return space.model_copy(update={"dtype": str(values.dtype)})


def _read_episodes(source: MinariDataset, indices: range) -> Iterator[Episode]:
    ids = source.episode_indices[indices.start : indices.stop]
    described = source.storage.get_episode_metadata(ids)
    for index, data, about in zip(indices, source.iterate_episodes(ids), described, strict=True):
        yield _to_episode(data, index, about.get("seed"))


def _to_episode(data: EpisodeData, index: int, seed: int | None) -> Episode:
    parts = data.observations
    if not isinstance(parts, dict):
        parts = {"observation": parts}
    actions = np.asarray(data.actions)
    if actions.dtype.kind in "iu":
        actions = actions.astype(np.int64).reshape(-1)
    return Episode(
        index=index,
        seed=seed,
        observations=parts["observation"],
        actions=actions,
        rewards=np.asarray(data.rewards, dtype=np.float64).reshape(-1),
        terminated=np.asarray(data.terminations, dtype=np.bool_).reshape(-1),
        truncated=np.asarray(data.truncations, dtype=np.bool_).reshape(-1),
        achieved_goals=parts.get("achieved_goal"),
        desired_goals=parts.get("desired_goal"),
    )


def _is_cut_off(uri: str) -> bool:
    try:
        return not read_header(uri).finished
    except NotFound:
        return False
