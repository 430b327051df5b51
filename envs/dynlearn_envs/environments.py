"""Making any Gymnasium environment by its id, and describing its spaces as plain data."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping
from difflib import get_close_matches
from textwrap import shorten
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from dynlearn.adapters.gymnasium_spaces import (
    describe_action,
    describe_observation,
    is_flat_action,
    is_flat_observation,
)
from dynlearn.errors import InvalidInput, NotFound, nearest
from dynlearn.spaces import ActionSpace, ObservationSpace
from dynlearn_envs.drawing import DRAWING_MEND, is_of_drawing
from dynlearn_envs.fetch_pick_and_place.task import FETCH_PICK_AND_PLACE
from dynlearn_envs.flat import FlatEnvironment
from dynlearn_envs.registration import OBJECT_SLIDE, register_environments

_OWN_KWARGS = {"id", "max_episode_steps", "disable_env_checker", "render_mode"}

Environment = gymnasium.Env[Any, Any]
VectorEnvironment = gymnasium.vector.VectorEnv[Any, Any, Any]


def make_environment(
    env_id: str,
    max_steps: int | None = None,
    render_mode: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Environment:
    """Make the environment of a Gymnasium id; nested spaces of one are seen flat.

    Args:
        env_id: an exact id, such as ``FetchPickAndPlace-v4``; ``package:id`` imports a package
            that registers the environment first.
        max_steps: where episodes are truncated; the environment's own limit if absent.
        render_mode: how pictures are drawn, such as ``rgb_array``; not at all if absent.
        kwargs: what it is made with, over what its registration says.

    Raises:
        NotFound: no environment has this id.
        InvalidInput: the environment cannot be made here or so, nothing limits its episodes, or a
            part of a space is no numbers that columns could be made of.
    """
    spec = _find_spec(env_id)
    if max_steps is None and spec.max_episode_steps is None:
        raise InvalidInput(
            f"expected max_steps (--max-steps) for {env_id}, whose episodes have no limit of "
            "their own, got none"
        )
    given = _checked(kwargs)
    drawing: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        # Gymnasium's checker speaks to an environment's author and slows every step.
        environment = gymnasium.make(
            spec, max_episode_steps=max_steps, disable_env_checker=True, **given, **drawing
        )
        spaces = environment.observation_space, environment.action_space
    except (Exception, SystemExit) as error:
        raise InvalidInput(
            f"expected an environment that can be made here, got {env_id}: "
            f"{type(error).__name__}: {_one_line(error)}{_mend(error, given)}"
        ) from error
    if is_flat_observation(spaces[0]) and is_flat_action(spaces[1]):
        return environment
    return FlatEnvironment(environment)


def close_environment(environment: Environment) -> None:
    """Close an environment; one that fails in that has failed too late to matter."""
    with contextlib.suppress(Exception, SystemExit):
        environment.close()


def _checked(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    given = dict(kwargs or {})
    if own := sorted(given.keys() & _OWN_KWARGS):
        raise InvalidInput(
            f"--env-kwargs: expected what the environment itself takes, got {', '.join(own)}, "
            "which is set here; give the longest episode by --max-steps"
        )
    return given


def _mend(error: BaseException, given: Mapping[str, Any]) -> str:
    if is_of_drawing(error):
        return f"; {DRAWING_MEND}"
    if isinstance(error, TypeError):
        made_with = f"other --env-kwargs than {given}" if given else "what it needs by --env-kwargs"
        return f"; give {made_with}"
    return ""


def make_vector_environment(
    env_id: str,
    num_envs: int,
    max_steps: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> VectorEnvironment | None:
    """Make ``num_envs`` environments that step as one, or return None where that cannot be.

    It can where the environment has a vector form of its own that promises, by
    ``metadata["episode_seeds"]``, to play the scalar environment's episode for each seed,
    and its spaces are flat.

    Raises:
        NotFound: no environment has this id.
    """
    spec = _find_spec(env_id)
    creator: Any = spec.vector_entry_point
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    if not getattr(creator, "metadata", {}).get("episode_seeds", False):
        return None
    limit: dict[str, Any] = {} if max_steps is None else {"max_episode_steps": max_steps}
    environment = gymnasium.make_vec(
        spec,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        **limit,
        **_checked(kwargs),
    )
    spaces = environment.single_observation_space, environment.single_action_space
    if is_flat_observation(spaces[0]) and is_flat_action(spaces[1]):
        return environment
    environment.close()
    return None


def describe_spaces(environment: Environment) -> tuple[ObservationSpace, ActionSpace]:
    """Return an environment's spaces as plain data.

    Raises:
        InvalidInput: a part of a space is no numbers that columns could be made of.
    """
    if isinstance(environment, FlatEnvironment):
        return environment.described
    return (
        describe_observation(environment.observation_space),
        describe_action(environment.action_space),
    )


def registration(env_id: str) -> EnvSpec | None:
    """Return how an environment is made where nothing else is said; None where it is unknown."""
    try:
        return _find_spec(env_id)
    except NotFound:
        return None


def _find_spec(env_id: str) -> EnvSpec:
    """Return the registry's entry for an exact id.

    An entry, unlike an id, spares a user who names an old version Gymnasium's warning about it.
    """
    package, _, name = env_id.rpartition(":")
    try:
        if package:
            importlib.import_module(package)
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise NotFound(
            f"expected an installed package before the colon of {env_id}: {kind}{_one_line(error)}"
        ) from error
    register_environments()
    if name not in gymnasium.registry:
        _register_robotics()
    if name not in gymnasium.registry:
        close = get_close_matches(name, gymnasium.registry, n=3)
        raise NotFound(
            f"expected the id of a Gymnasium environment, got {env_id!r}; "
            f"{nearest(name, close or [OBJECT_SLIDE, FETCH_PICK_AND_PLACE])}"
        )
    return gymnasium.registry[name]


def _register_robotics() -> None:
    """Add gymnasium-robotics' environments to the registry, where it is installed.

    Its import prints a notice about environments of other families to stderr.
    """
    try:
        with contextlib.suppress(ModuleNotFoundError), contextlib.redirect_stderr(io.StringIO()):
            importlib.import_module("gymnasium_robotics")
    except Exception as error:
        raise InvalidInput(
            f"expected gymnasium_robotics to be imported, got {type(error).__name__}: "
            f"{_one_line(error)}{_mend(error, {})}"
        ) from error


def _one_line(value: object) -> str:
    return shorten(str(value), width=300)
