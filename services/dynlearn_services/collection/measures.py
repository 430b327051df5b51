"""What collected episodes show of an environment's task: contact and success."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynlearn.data.episodes import EpisodeTable
from dynlearn.errors import NotFound
from dynlearn.task import Task, find_task
from dynlearn_services.collection.recorder import Played


class Measures:
    """Counts transitions with contact and episodes that end in success."""

    def __init__(self, environment: str):
        """Count for the task of an environment id, if it has one."""
        self._task: Task | None
        try:
            self._task = find_task(environment)
        except NotFound:
            self._task = None
        self._episodes = self._transitions = self._contacts = self._successes = 0
        self._knows_success = self._task is not None and self._task.success is not None

    @property
    def contact_share(self) -> float | None:
        """The share of transitions with contact, if the task knows contact."""
        if self._task is None or self._task.contact is None or not self._transitions:
            return None
        return self._contacts / self._transitions

    @property
    def success_share(self) -> float | None:
        """The share of episodes whose last transition ends in success.

        None if neither the environment's task nor the environment itself knows success.
        """
        return self._successes / self._episodes if self._episodes else None

    def add(self, played: Played) -> None:
        """Count in more episodes."""
        table = played.table
        if self._knows_success:
            self._episodes += len(table)
        else:
            told = [one for one in played.successes if one is not None]
            self._episodes += len(told)
            self._successes += sum(told)
        if self._task is None:
            return
        # Here and not above: the workers play while torch is being imported.
        import torch

        transitions = tuple(torch.as_tensor(part) for part in _transitions(self._task, table))
        last = torch.from_numpy(np.cumsum(table.lengths) - 1)
        if self._task.success is not None:
            self._successes += int(self._task.success(*(part[last] for part in transitions)).sum())
        if self._task.contact is not None:
            self._contacts += int(self._task.contact(*transitions).sum())
        self._transitions += table.steps


def _transitions(task: Task, table: EpisodeTable) -> tuple[NDArray[Any], ...]:
    """Return observations, actions, next observations and contexts, a row for each step."""
    from dynlearn.data.transitions import before_each_step

    starts = np.cumsum(table.lengths + 1) - table.lengths - 1
    is_before = before_each_step(table.lengths)
    contexts = np.stack([task.read_context(reset) for reset in _resets(table, starts)])
    return (
        table.observations[is_before],
        table.actions,
        table.observations[np.roll(is_before, 1)],
        np.repeat(contexts, table.lengths, axis=0),
    )


def _resets(table: EpisodeTable, starts: NDArray[np.int64]) -> Iterator[Any]:
    """Give what the environment gave at the start of each episode, in its own form."""
    observations = table.observations[starts]
    if table.achieved_goals is None or table.desired_goals is None:
        yield from observations
        return
    goals = table.achieved_goals[starts], table.desired_goals[starts]
    for observation, achieved, desired in zip(observations, *goals, strict=True):
        yield {"observation": observation, "achieved_goal": achieved, "desired_goal": desired}
