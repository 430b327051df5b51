"""Datasets from Minari, the exchange format of offline reinforcement learning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from textwrap import shorten
from typing import Any

import gymnasium
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.dataset.episode_data import EpisodeData
from minari.dataset.minari_dataset import MinariDataset
from numpy.typing import NDArray
from pydantic import JsonValue, TypeAdapter, ValidationError

from dynlearn.adapters.flat_spaces import flatten_rows
from dynlearn.adapters.gymnasium_spaces import (
    describe_action,
    describe_observation,
    is_flat_action,
    is_flat_observation,
)
from dynlearn.data.bounds import describe_outside, steps_outside
from dynlearn.data.episodes import Episode, EpisodeTable
from dynlearn.data.header import ENV_KWARGS, DatasetHeader, read_header
from dynlearn.data.outliers import Outlier, describe_outliers, find_outliers
from dynlearn.data.writer import EpisodeWriter
from dynlearn.errors import CorruptData, NotFound
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.task import describe_columns
from dynlearn_envs.environments import registration
from dynlearn_services.exchange.minari_folder import minari_folder, path_of, require_there

_EPISODES_AT_ONCE = 500
_UNKNOWN = "unknown"

Space = gymnasium.Space[Any]

_log = logging.getLogger(__name__)


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
    with minari_folder():
        require_there(dataset_id)
        try:
            source = minari.load_dataset(dataset_id)
            header = _plan_import(dataset_id, source)
            with EpisodeWriter.create(uri, header, resume=_is_cut_off(uri)) as store:
                try:
                    _copy(source, store)
                except BaseException:
                    store.abandon_if_empty()
                    raise
                return store.finish()
        except (OSError, KeyError, ValueError, TypeError, IndexError, AssertionError) as error:
            reason = f"{type(error).__name__}: {shorten(str(error), 200)}"
            raise CorruptData(
                f"expected a whole Minari dataset in {path_of(dataset_id)}, got {reason}"
            ) from error


def _copy(source: MinariDataset, store: EpisodeWriter) -> None:
    """Copy what is missing, and warn of what a model would learn wrongly from."""
    header = store.header
    outliers: list[Outlier] = []
    steps, outside = 0, np.zeros(1, dtype=np.int64)
    for shard in store.missing_shards():
        indices = header.shard_indices(shard)
        table = EpisodeTable.of(list(_read_episodes(source, indices)))
        store.append(table)
        outliers += find_outliers(table)
        outside = outside + steps_outside(table, header.action_space)
        steps += table.steps
    if outside.any():
        _log.warning("warning: %s", describe_outside(outside, steps, header.action_space))
    if outliers:
        columns = describe_columns(header.environment, header.observation_space)
        _log.warning("warning: %s", describe_outliers(outliers, columns.labels))


def _plan_import(dataset_id: str, source: MinariDataset) -> DatasetHeader:
    observation_space = describe_observation(source.observation_space)
    action_space = describe_action(source.action_space)
    if not source.total_episodes:
        raise CorruptData(f"expected episodes in the Minari dataset {dataset_id}, got none")
    # Recorders may keep another dtype than the space has; the arrays' own is what counts.
    first = _to_episode(source, source[0], 0, None)
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
        config={"minari_dataset": dataset_id, **_made_with(source.env_spec)},
        planned=source.total_episodes,
        episodes_per_shard=_EPISODES_AT_ONCE,
    )


def _made_with(spec: EnvSpec | None) -> dict[str, JsonValue]:
    """Return how the environment was made, as far as its registration does not say so."""
    if spec is None:
        return {}
    known = registration(spec.id)
    made: dict[str, JsonValue] = {}
    if spec.max_episode_steps is not None and (
        known is None or known.max_episode_steps != spec.max_episode_steps
    ):
        made["max_steps"] = spec.max_episode_steps
    kwargs = {
        name: value
        for name, value in spec.kwargs.items()
        if name != "render_mode" and not (known and known.kwargs.get(name, spec) == value)
    }
    # Else objects of Python, which only the recorder could make.
    with suppress(ValidationError):
        if kwargs:
            made[ENV_KWARGS] = TypeAdapter(dict[str, JsonValue]).validate_python(kwargs)
    return made


def _with_dtype(space: BoxSpace, values: NDArray[Any]) -> BoxSpace:
    return space.model_copy(update={"dtype": str(values.dtype)})


def _read_episodes(source: MinariDataset, indices: range) -> Iterator[Episode]:
    ids = source.episode_indices[indices.start : indices.stop]
    described = source.storage.get_episode_metadata(ids)
    for index, data, about in zip(indices, source.iterate_episodes(ids), described, strict=True):
        yield _to_episode(source, data, index, about.get("seed"))


def _to_episode(source: MinariDataset, data: EpisodeData, index: int, seed: int | None) -> Episode:
    rewards = np.asarray(data.rewards, dtype=np.float64).reshape(-1)
    states = _columns(source.observation_space, data.observations, len(rewards) + 1)
    parts = states if isinstance(states, dict) else {"observation": states}
    return Episode(
        index=index,
        seed=seed,
        observations=parts["observation"],
        actions=_actions(source.action_space, data.actions, len(rewards)),
        rewards=rewards,
        terminated=np.asarray(data.terminations, dtype=np.bool_).reshape(-1),
        truncated=np.asarray(data.truncations, dtype=np.bool_).reshape(-1),
        achieved_goals=parts.get("achieved_goal"),
        desired_goals=parts.get("desired_goal"),
    )


def _columns(space: Space, values: Any, rows: int) -> Any:
    return values if is_flat_observation(space) else flatten_rows(space, values, rows)


def _actions(space: Space, values: Any, rows: int) -> NDArray[Any]:
    if not is_flat_action(space):
        return flatten_rows(space, values, rows)
    actions = np.asarray(values)
    if isinstance(space, gymnasium.spaces.Discrete) and actions.dtype.kind in "iu":
        return actions.astype(np.int64).reshape(-1)
    return actions


def _is_cut_off(uri: str) -> bool:
    try:
        return not read_header(uri).finished
    except NotFound:
        return False
