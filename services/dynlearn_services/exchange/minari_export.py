"""Datasets to Minari, the exchange format of offline reinforcement learning."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from typing import Any

import gymnasium
import minari
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector.utils import concatenate, create_empty_array
from minari.data_collector import EpisodeBuffer

from dynlearn.adapters.flat_spaces import unflatten
from dynlearn.adapters.gymnasium_spaces import (
    is_flat_action,
    is_flat_observation,
    to_gymnasium,
)
from dynlearn.data.episodes import Episode
from dynlearn.data.header import DatasetHeader
from dynlearn.data.store import EpisodeStore
from dynlearn.errors import InvalidInput
from dynlearn_envs.environments import Environment, describe_spaces, make_environment
from dynlearn_envs.flat import FlatEnvironment
from dynlearn_services.exchange.minari_folder import minari_folder, path_of

_EPISODES_AT_ONCE = 500

Space = gymnasium.Space[Any]


def export_minari(store: EpisodeStore, dataset_id: str) -> None:
    """Write a dataset as a Minari dataset, to be opened with ``minari.load_dataset``.

    Where the environment is installed, what was flattened gets its own form back.

    Args:
        store: a finished dataset.
        dataset_id: a new Minari id, such as ``slide/random-v0``.

    Raises:
        InvalidInput: it is no Minari id, such a dataset exists, or it cannot be written.
    """
    with minari_folder():
        path = path_of(dataset_id)
        if path.exists():
            raise InvalidInput(
                f"expected the id of a new Minari dataset, got {dataset_id}, which exists in {path}"
            )
        environment = _find_environment(store.header)
        observation_space, action_space = _spaces(store.header, environment)
        buffers = (
            _to_buffer(episode, observation_space, action_space) for episode in store.episodes()
        )
        try:
            exported = minari.create_dataset_from_buffers(
                dataset_id,
                list(islice(buffers, _EPISODES_AT_ONCE)),
                env=_spec(environment),
                observation_space=observation_space,
                action_space=action_space,
                algorithm_name=store.header.policy,
                description=_describe(store.header),
                data_format="hdf5",
            )
            while some := list(islice(buffers, _EPISODES_AT_ONCE)):
                exported.update_dataset_from_buffer(some)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise


def _find_environment(header: DatasetHeader) -> Environment | None:
    """Return the environment of a dataset where it is installed, for others to recover it."""
    max_steps = header.config.get("max_steps")
    try:
        return make_environment(
            header.environment,
            max_steps if isinstance(max_steps, int) else None,
            kwargs=header.env_kwargs,
        )
    except InvalidInput:
        return None


def _spec(environment: Environment | None) -> EnvSpec | None:
    """Return how an environment is made, where that can be written down."""
    if isinstance(environment, FlatEnvironment):
        environment = environment.env
    spec = environment.spec if environment else None
    try:
        if spec is not None:
            spec.to_json()
    except Exception:
        # It was registered as an object of Python, which no other process can make.
        return None
    return spec


def _spaces(header: DatasetHeader, environment: Environment | None) -> tuple[Space, Space]:
    """Return the spaces in the form that the environment has them, if it is the dataset's."""
    own = (header.observation_space, header.action_space)
    if isinstance(environment, FlatEnvironment) and describe_spaces(environment) == own:
        return environment.env.observation_space, environment.env.action_space
    return to_gymnasium(own[0]), to_gymnasium(own[1])


def _describe(header: DatasetHeader) -> str:
    made = {"environment": header.environment, "config": header.config, "versions": header.versions}
    return f"Collected with dynlearn: {json.dumps(made)}"


def _to_buffer(episode: Episode, observation_space: Space, action_space: Space) -> EpisodeBuffer:
    observations: Any = episode.observations
    if episode.achieved_goals is not None:
        observations = {
            "observation": episode.observations,
            "achieved_goal": episode.achieved_goals,
            "desired_goal": episode.desired_goals,
        }
    elif not is_flat_observation(observation_space):
        observations = _nested(observation_space, episode.observations)
    actions: Any = episode.actions
    if not is_flat_action(action_space):
        actions = _nested(action_space, actions)
    columns: dict[str, Any] = {
        "observations": observations,
        "actions": actions,
        "rewards": episode.rewards,
        "terminations": episode.terminated,
        "truncations": episode.truncated,
    }
    return EpisodeBuffer(id=episode.index, seed=episode.seed, **columns)


def _nested(space: Space, rows: Any) -> Any:
    """Return flat rows [any number, columns] as arrays in the space's own form."""
    values = [unflatten(space, row) for row in rows]
    empty: Any = create_empty_array(space, len(rows))
    return concatenate(space, values, empty)
