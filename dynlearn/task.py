"""What a planner must know of an environment: columns, rewards, success, and where the goal is.

A `Task` is found by its environment id through the entry-point group ``dynlearn.tasks``, so that
any installed package can add one.

Shapes: ``...`` any batch dimensions, O observation, A action, G context (the goal).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from dynlearn.errors import InvalidInput, NotFound, nearest
from dynlearn.spaces import ObservationSpace

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TransitionFunction = Callable[["Tensor", "Tensor", "Tensor", "Tensor"], "Tensor"]
"""(observation [..., O], action [..., A], next_observation [..., O], context [..., G]) -> [...]"""

ENTRY_POINT_GROUP = "dynlearn.tasks"

LEARNED = "learned"
"""What a learned reward is called where rewards have names."""


@dataclass(frozen=True)
class Task:
    """An environment as a planner sees it. Every function is batched over leading dimensions.

    Attributes:
        name: a short name, such as ``object_slide``.
        environment: the Gymnasium id that the task belongs to.
        observation_columns: a name for each of the O observation columns.
        rewards: reward functions by name; the first is the environment's own.
        success: whether a transition ends in the goal, as a boolean tensor, or None where there is
            no such thing.
        read_context: takes one environment observation (an array, or the goal-Dict of arrays)
            and returns the context, float [G].
        termination: whether a transition ends the episode, or None where it never does.
        contact: whether the agent moves the object in a transition, or None where there is none.
        target_columns: the columns that the papers predict (the object's position).
        units: of each observation column, such as ``m/s``; empty where unknown.
    """

    name: str
    environment: str
    observation_columns: tuple[str, ...]
    rewards: Mapping[str, TransitionFunction]
    success: TransitionFunction | None
    read_context: Callable[[Any], np.ndarray]
    termination: TransitionFunction | None = None
    contact: TransitionFunction | None = None
    target_columns: tuple[int, ...] = ()
    units: tuple[str, ...] = ()

    @property
    def column_labels(self) -> tuple[str, ...]:
        """The observation columns' names with their units, for figures and tables."""
        if not self.units:
            return self.observation_columns
        columns = zip(self.observation_columns, self.units, strict=True)
        return tuple(f"{name} ({unit})" for name, unit in columns)

    def reward(self, name: str | None = None) -> TransitionFunction:
        """Return the reward function called ``name``; None is the environment's own.

        Raises:
            InvalidInput: the task has no reward of that name.
        """
        if name is None:
            name = next(iter(self.rewards))
        if name not in self.rewards:
            raise InvalidInput(
                f"expected a reward of task {self.name}, got {name!r}; "
                f"{nearest(name, self.rewards)}"
            )
        return self.rewards[name]

    def context_size(self, space: ObservationSpace) -> int | None:
        """Return G, what the context of observations of a space has of columns.

        None where it cannot be read off zeros: there is more to an observation than the space says.
        """
        import numpy as np

        observation: Any = np.zeros(space.observation.size)
        if space.goal is not None:
            goal = np.zeros(space.goal.size)
            observation = {
                "observation": observation,
                "achieved_goal": goal,
                "desired_goal": goal.copy(),
            }
        try:
            context = np.asarray(self.read_context(observation))
        except Exception:
            return None
        return context.size if context.ndim == 1 else None


def bare_task(environment: str, space: ObservationSpace) -> Task:
    """Return what is plain of any environment: its goal if it has one, no reward and no success."""
    return Task(
        name=environment,
        environment=environment,
        observation_columns=space.observation.names("observation"),
        rewards={},
        success=None,
        read_context=_read_goal,
    )


def _read_goal(observation: Any) -> np.ndarray:
    import numpy as np

    has_goal = isinstance(observation, dict) and "desired_goal" in observation
    return np.asarray(observation["desired_goal"] if has_goal else ())


def installed_tasks() -> dict[str, Task]:
    """Return every installed task by its environment id."""
    tasks = (point.load() for point in entry_points(group=ENTRY_POINT_GROUP))
    return {task.environment: task for task in tasks}


def find_task(environment: str) -> Task:
    """Return the task of an environment id.

    Raises:
        NotFound: no installed package registers a task for it.
    """
    tasks = installed_tasks()
    if environment not in tasks:
        raise NotFound(
            f"expected an environment with a task, got {environment!r}; "
            f"{nearest(environment, tasks)} (a package adds one through the entry-point group "
            f"{ENTRY_POINT_GROUP})"
        )
    return tasks[environment]


class Columns(NamedTuple):
    """What people call the observation columns, and which of them they look at first.

    Attributes:
        labels: of each column, with its unit where that is known.
        focus: the columns that matter to the task; empty where no task says so.
    """

    labels: tuple[str, ...]
    focus: tuple[int, ...] = ()


def describe_columns(environment: str, space: ObservationSpace) -> Columns:
    """Return what is known of the columns of an environment's observations."""
    task = installed_tasks().get(environment)
    if task is None or len(task.observation_columns) != space.observation.size:
        return Columns(space.observation.names("observation"))
    return Columns(task.column_labels, task.target_columns)
