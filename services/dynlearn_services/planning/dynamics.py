"""The dynamics that a plan is made with: a published model, loaded here or served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from dynlearn.client import DynamicsClient
from dynlearn.compute import pick_device
from dynlearn.config import PlanConfig, PlannerConfig
from dynlearn.errors import InvalidInput
from dynlearn.models.published import load_published
from dynlearn.planning import Estimator
from dynlearn.planning.remote import RemoteDynamics
from dynlearn.registry import ModelVersion, Registry
from dynlearn.rollout.dynamics import Dynamics, GroupedDynamics
from dynlearn.spaces import ActionSpace, ObservationSpace, difference
from dynlearn.task import LEARNED, Task, TransitionFunction
from dynlearn.training.provenance import MadeWith, read_environment
from dynlearn_services.home import Home

Spaces = tuple[ObservationSpace, ActionSpace]

# For all candidates of an iteration at once.
_SECONDS = 600.0


class PlannedModel(Protocol):
    """A model to plan with."""

    @property
    def data(self) -> MadeWith:
        """Of what environment its data were."""

    def open(self, config: PlanConfig, task: Task, spaces: Spaces) -> tuple[Estimator, str]:
        """Return the estimator that a configuration names, and the version of its model.

        Args:
            config: which reward, and how candidates are judged.
            task: of the environment.
            spaces: of the environment.

        Raises:
            InvalidInput: the model is not of this environment, or cannot be planned with.
        """


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
def find_model(config: PlanConfig, home: Home) -> Iterator[PlannedModel]:
    """Give the model that a configuration names; it is loaded when it is opened.

    Raises:
        NotFound: there is no such model.
        Unavailable: the server cannot be reached.
    """
    if config.url is None:
        yield _LocalModel(Registry(home.models).resolve(config.model))
        return
    name, _, number = config.model.partition("/")
    with (
        DynamicsClient(config.url, name, number or None, timeout=_SECONDS) as client,
        client.pin() as pinned,
    ):
        yield _ServedModel(pinned)


@dataclass(frozen=True)
class _LocalModel:
    version: ModelVersion

    @property
    def data(self) -> MadeWith:
        return read_environment(self.version.folder)

    def open(self, config: PlanConfig, task: Task, spaces: Spaces) -> tuple[Estimator, str]:
        device = pick_device(config.device)
        model, learned = load_published(self.version.folder, device, config.precision)
        _require_same_spaces(
            config.env, spaces, model.spec.observation_size, model.spec.action_space
        )
        model.spec.require_full_state()
        if config.reward != LEARNED:
            reward: TransitionFunction = task.reward(config.reward)
        elif learned is None:
            raise InvalidInput(
                f"reward: expected a model that has learned one, got {config.model}; train one "
                "with --learn-reward"
            )
        else:
            reward = learned
        return estimator_of(config, model, reward), self.version.version


@dataclass(frozen=True)
class _ServedModel:
    client: DynamicsClient

    @property
    def data(self) -> MadeWith:
        spec = self.client.spec
        return MadeWith(spec.environment, spec.env_kwargs, spec.seed_range)

    def open(self, config: PlanConfig, task: Task, spaces: Spaces) -> tuple[Estimator, str]:
        spec = self.client.spec
        _require_same_spaces(config.env, spaces, spec.observation_size, spec.action_space)
        name = config.reward or next(iter(task.rewards))
        is_known = name in spec.rewards.get(config.env, ())
        rows = config.episodes * config.candidates * config.particles
        most, steps = spec.limits, rows * config.horizon
        fits = most is None or (
            rows <= most.max_rows and (most.max_row_steps is None or steps <= most.max_row_steps)
        )
        # Else it is judged here, step by step: one of a task that is installed only here, or of
        # more rows than the server takes at once.
        is_judged_there = name == LEARNED or (is_known and fits)
        reward = name if is_judged_there else task.reward(name)
        return estimator_of(config, RemoteDynamics(self.client, config.env), reward), spec.version


def _require_same_spaces(
    env_id: str, spaces: Spaces, observation_size: int, action_space: ActionSpace
) -> None:
    observation, action = spaces
    unlike = None
    if observation.observation.size != observation_size:
        size = observation.observation.size
        unlike = f"observations: expected {size} columns, got {observation_size}"
    elif (found := difference(action, action_space)) is not None:
        unlike = f"actions: {found}"
    if unlike:
        raise InvalidInput(
            f"expected a model of {env_id}, got one of another environment ({unlike}); name its "
            "own by --env, or train one on a dataset of this one"
        )
