"""The dynamics that a plan is made with: a published model, loaded here or served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dynlearn.client import DynamicsClient
from dynlearn.compute import pick_device
from dynlearn.config import PlanConfig, PlannerConfig
from dynlearn.errors import InvalidInput
from dynlearn.models.published import load_published
from dynlearn.planning import Estimator
from dynlearn.planning.remote import RemoteDynamics
from dynlearn.registry import Registry
from dynlearn.rollout.dynamics import Dynamics, GroupedDynamics
from dynlearn.spaces import ActionSpace, ObservationSpace
from dynlearn.task import LEARNED, Task, TransitionFunction
from dynlearn_services.home import Home

Spaces = tuple[ObservationSpace, ActionSpace]

# For all candidates of an iteration at once.
_SECONDS = 600.0


def estimator_of(
    settings: PlannerConfig,
    dynamics: Dynamics | GroupedDynamics,
    reward: TransitionFunction | str,
) -> Estimator:
    """Return what a planner with these settings judges by."""
    return Estimator(
        dynamics, reward, settings.particles, settings.propagation, settings.risk_aversion
    )


@contextmanager
def open_estimator(
    config: PlanConfig, home: Home, task: Task, spaces: Spaces
) -> Iterator[tuple[Estimator, str]]:
    """Give the estimator that a configuration names, and the version of its model.

    Args:
        config: which model and reward, loaded or served.
        home: where local models are.
        task: of the environment.
        spaces: of the environment.

    Raises:
        InvalidInput: the model is not of this environment, or cannot be planned with.
        NotFound: there is no such model.
        Unavailable: the server cannot be reached.
    """
    if config.url is None:
        yield _local(config, home, task, spaces)
        return
    name, _, number = config.model.partition("/")
    with (
        DynamicsClient(config.url, name, number or None, timeout=_SECONDS) as client,
        client.pin() as pinned,
    ):
        yield _served(config, pinned, task, spaces)


def _local(config: PlanConfig, home: Home, task: Task, spaces: Spaces) -> tuple[Estimator, str]:
    version = Registry(home.models).resolve(config.model)
    model, learned = load_published(version.folder, pick_device(config.device), config.precision)
    _require_same_spaces(config.env, spaces, model.spec.observation_size, model.spec.action_space)
    model.require_full_state()
    if config.reward != LEARNED:
        return estimator_of(config, model, task.reward(config.reward)), version.version
    if learned is None:
        raise InvalidInput(
            f"reward: expected a model that has learned one, got {config.model}; train one with "
            "--learn-reward"
        )
    return estimator_of(config, model, learned), version.version


def _served(
    config: PlanConfig, client: DynamicsClient, task: Task, spaces: Spaces
) -> tuple[Estimator, str]:
    spec = client.spec
    _require_same_spaces(config.env, spaces, spec.observation_size, spec.action_space)
    name = config.reward or next(iter(task.rewards))
    is_known = name in spec.rewards.get(config.env, ())
    rows = config.episodes * config.candidates * config.particles
    fits = spec.limits is None or rows <= spec.limits.max_rows
    # Else it is judged here, step by step: one of a task that is installed only here, or of more
    # rows than the server takes at once.
    is_judged_there = name == LEARNED or (is_known and fits)
    reward = name if is_judged_there else task.reward(name)
    return estimator_of(config, RemoteDynamics(client, config.env), reward), spec.version


def _require_same_spaces(
    env_id: str, spaces: Spaces, observation_size: int, action_space: ActionSpace
) -> None:
    observation, action = spaces
    if observation.observation.size != observation_size or action != action_space:
        raise InvalidInput(
            f"expected a model of {env_id} ({observation.observation.size} observation columns, "
            f"{action.size} action columns), got one of {observation_size} and "
            f"{action_space.size}; train one on a dataset of that environment"
        )
