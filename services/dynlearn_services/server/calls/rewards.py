"""What judges a rollout: a reward of an installed task, or the one that the model has learned.

Shapes: S start states, P candidates, H horizon, O observation, A action, G context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dynlearn.errors import InvalidInput, nearest
from dynlearn.models.spec import ModelSpec
from dynlearn.task import LEARNED, Task
from dynlearn_services.server.calls.parameters import RolloutParameters
from dynlearn_services.server.models.loaded_model import LoadedModel

if TYPE_CHECKING:
    from dynlearn.task import TransitionFunction


def known_rewards(tasks: Sequence[Task], spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Return the names of the rewards that suit a model's rollouts, by their environment."""
    if not spec.full_state:
        return {}
    fitting = _fitting(tasks, spec.observation_size)
    return {task.environment: tuple(task.rewards) for task in fitting}


def find_reward(
    tasks: Sequence[Task],
    name: str,
    environment: str | None,
    columns: int,
    others: Sequence[str] = (),
) -> TransitionFunction:
    """Return a task's reward of a name.

    Args:
        tasks: those that are installed.
        name: the reward's.
        environment: the task's environment; absent, the one task with observations of so many
            columns and such a reward.
        columns: O.
        others: names that are known beside those of tasks, to tell who misspells one.

    Raises:
        InvalidInput: none fits, or several do.
    """
    fitting = _fitting(tasks, columns)
    if environment is not None:
        fitting = [task for task in fitting if task.environment == environment]
        if not fitting:
            known = [task.environment for task in tasks]
            raise InvalidInput(
                f"parameters.environment: expected a task with {columns} observation columns, got "
                f"{environment!r}; {nearest(environment, known)}"
            )
    found = [task for task in fitting if name in task.rewards]
    if len(found) == 1:
        return found[0].reward(name)
    if found:
        raise InvalidInput(
            "parameters.environment: expected it where several tasks have such a reward: "
            f"{', '.join(task.environment for task in found)}"
        )
    known = sorted({reward for task in fitting for reward in task.rewards}.union(others))
    raise InvalidInput(
        f"parameters.reward: expected a reward of a task with {columns} observation columns, got "
        f"{name!r}; {nearest(name, known)}"
    )


def choose_reward(
    tasks: Sequence[Task], model: LoadedModel, parameters: RolloutParameters
) -> TransitionFunction | None:
    """Return what judges a rollout, if anything is to: a task's reward, or what was learned.

    Raises:
        InvalidInput: there is no such reward, or several tasks have one.
    """
    learned = model.reward
    if parameters.reward is None:
        return None
    if parameters.reward != LEARNED:
        return find_reward(
            tasks,
            parameters.reward,
            parameters.environment,
            model.model.spec.observation_size,
            [LEARNED] if learned is not None else [],
        )
    if learned is None:
        raise InvalidInput(
            f"parameters.reward: expected a model that has learned a reward, got {model.name} "
            f"{model.version}; train one with --learn-reward"
        )
    return learned


@torch.no_grad()
def try_reward(
    reward: TransitionFunction, observation: Tensor, actions: Tensor, context: Tensor
) -> None:
    """Judge one transition, so that a context that does not suit is refused before any work.

    Args:
        reward: what judges.
        observation: [S, O].
        actions: [S, P, H, A].
        context: [S, G].

    Raises:
        InvalidInput: the reward needs another context.
    """
    first = observation[:1]
    try:
        reward(first, actions[:1, 0, 0], first, context[:1])
    except (IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidInput(
            f"context: expected what the reward needs, such as the goal, got shape "
            f"{list(context.shape)} ({reason})"
        ) from error


def _fitting(tasks: Sequence[Task], columns: int) -> list[Task]:
    return [task for task in tasks if len(task.observation_columns) == columns]
