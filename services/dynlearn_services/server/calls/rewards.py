"""What judges a rollout: a reward of the environment's task, or the one that the model has learned.

Shapes: S start states, P candidates, H horizon, O observation, A action, G context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dynlearn.errors import InvalidInput, nearest
from dynlearn.task import LEARNED, Task
from dynlearn_services.server.calls.parameters import RolloutParameters
from dynlearn_services.server.inference.faults import is_shortage
from dynlearn_services.server.models.loaded_model import LoadedModel

if TYPE_CHECKING:
    from dynlearn.task import TransitionFunction


class Judge(NamedTuple):
    """A reward, and what it needs beside transitions.

    Attributes:
        reward: what judges.
        context_size: G; None where nothing but the reward can tell.
    """

    reward: TransitionFunction
    context_size: int | None

    def require_context(self, columns: int) -> None:
        """Check how many columns a context has.

        Raises:
            InvalidInput: the reward needs others.
        """
        if self.context_size not in (None, columns):
            raise InvalidInput(
                f"context: expected the goal, of {self.context_size} columns, got {columns}"
            )

    @torch.no_grad()
    def try_out(self, observation: Tensor, actions: Tensor, context: Tensor) -> None:
        """Judge one transition, so that a context that does not suit is refused before any work.

        Args:
            observation: [S, O].
            actions: [S, P, H, A].
            context: [S, G].

        Raises:
            InvalidInput: the reward needs another context.
        """
        first = observation[:1]
        try:
            self.reward(first, actions[:1, 0, 0], first, context[:1])
        except (IndexError, RuntimeError) as error:
            if is_shortage(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise InvalidInput(
                f"context: expected what the reward needs, such as the goal, got shape "
                f"{list(context.shape)} ({reason})"
            ) from error


def task_of(tasks: Sequence[Task], model: LoadedModel) -> Task | None:
    """Return the task of the environment whose data a model was trained on, if one is installed."""
    if model.environment is None or not model.model.spec.full_state:
        return None
    fitting = (task for task in _fitting(tasks, model) if task.environment == model.environment)
    return next(fitting, None)


def choose_judge(
    tasks: Sequence[Task], model: LoadedModel, parameters: RolloutParameters
) -> Judge | None:
    """Return what judges a rollout, if anything is to: a task's reward, or what was learned.

    The task is that of the model's environment. Callers name one only where the model was published
    without a word of it, and answer for it.

    Raises:
        InvalidInput: there is no such reward, or the model is of another environment.
    """
    name, learned = parameters.reward, model.reward
    if name is None:
        return None
    if name == LEARNED:
        if learned is None:
            raise InvalidInput(
                f"parameters.reward: expected a model that has learned a reward, got {model.name} "
                f"{model.version}; train one with --learn-reward"
            )
        return Judge(learned, learned.context_size)
    environment = _environment(model, parameters.environment)
    task = next((one for one in _fitting(tasks, model) if one.environment == environment), None)
    known = [] if task is None else list(task.rewards)
    if task is None or name not in known:
        known += [LEARNED] if learned is not None else []
        raise InvalidInput(
            f"parameters.reward: expected a reward of {environment}, with "
            f"{model.model.spec.observation_size} observation columns, got {name!r}; "
            f"{nearest(name, known)}"
        )
    return Judge(task.rewards[name], task.context_size(model.model.spec.observation_space))


def _environment(model: LoadedModel, named: str | None) -> str:
    own = model.environment
    if own is None and named is None:
        raise InvalidInput(
            f"parameters.environment: expected the environment whose reward is meant, for model "
            f"{model.name} {model.version} was published without its own, got none"
        )
    if named is not None and own is not None and named != own:
        raise InvalidInput(
            f"parameters.environment: expected {own}, which model {model.name} {model.version} is "
            f"of, got {named!r}; leave it out"
        )
    return own or named or ""


def _fitting(tasks: Sequence[Task], model: LoadedModel) -> list[Task]:
    columns = model.model.spec.observation_size
    return [task for task in tasks if len(task.observation_columns) == columns]
