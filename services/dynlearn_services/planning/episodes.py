"""Real episodes, played side by side.

Shapes: S episodes, T steps, O observation, A action, G context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynlearn.errors import CorruptData, InvalidInput, NumericalFailure
from dynlearn_envs.environments import Environment, close_environment, make_environment
from dynlearn_envs.seeds import SeedRange, start_seeds
from dynlearn_services.planning.real_episode import RealEpisode

if TYPE_CHECKING:
    from dynlearn.task import Task

    Frames = list[NDArray[np.uint8]]

    Act = Callable[[Tensor, Tensor, int], Tensor]
    # (observation [S, O], context [S, G], steps left) -> actions [S, A]


@dataclass(frozen=True)
class Playthrough:
    """Episodes that were really played.

    Attributes:
        observations: [S, T + 1, O].
        actions: [S, T, A].
        lengths: the steps of each episode, [S]; what comes after them means nothing.
        returns: the environment's own sum of rewards, [S].
        successes: whether the last step ended in the goal, as the task says or else the
            environment, [S]; None where neither does.
        frames: pictures of the first episode, where they were asked for.
        notes: why episodes ended before their time, [S]; None of those that did not.
        version: of the model, where one was used.
    """

    observations: Tensor
    actions: Tensor
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    successes: NDArray[np.bool_] | None
    frames: Frames
    notes: tuple[str | None, ...]
    version: str = ""

    @property
    def success_share(self) -> float | None:
        """The share of episodes that ended in the goal."""
        return None if self.successes is None else float(self.successes.mean())


@contextmanager
def making(
    env_id: str,
    count: int,
    pictures: bool = False,
    max_steps: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> Iterator[list[Environment]]:
    """Make so many environments, the first one to be drawn where ``pictures``; close them after.

    Args:
        env_id: their Gymnasium id.
        count: how many.
        pictures: whether the first is to be drawn.
        max_steps: where episodes are truncated; the environment's own limit if absent.
        kwargs: what they are made with.

    Raises:
        NotFound: no environment has this id.
        InvalidInput: it cannot be made here.
    """
    environments: list[Environment] = []
    try:
        for index in range(count):
            render_mode = "rgb_array" if pictures and not index else None
            environments.append(
                make_environment(
                    env_id, max_steps=max_steps, render_mode=render_mode, kwargs=kwargs
                )
            )
        yield environments
    finally:
        for environment in environments:
            close_environment(environment)


def play(
    task: Task,
    environments: Sequence[Environment],
    act: Act,
    seed: int,
    pictures: bool = False,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
    seed_range: SeedRange | None = None,
) -> Playthrough:
    """Play an episode of each environment, side by side, until all are over.

    The start states depend on ``seed`` alone, so that different planners meet the same ones. An
    episode whose environment fails, or for which there is no action, ends with a note; the others
    go on.

    Args:
        task: of the environments.
        environments: S of one kind.
        act: gives the actions; NaN where there is none.
        seed: of the start states.
        pictures: whether to draw the first.
        on_step: called with the steps done and the most there can be.
        seed_range: which seeds the environments take; any if None.

    Raises:
        InvalidInput: the episodes have no end.
        CorruptData: no environment can take a single step.
        NumericalFailure: there is no action for any of the start states.
    """
    spec = environments[0].spec
    limit = spec.max_episode_steps if spec else None
    if limit is None:
        raise InvalidInput(
            f"expected an environment whose episodes end, got {task.environment} without "
            "max_episode_steps; name the longest episode by --max-steps"
        )
    seeds = start_seeds(seed, len(environments), seed_range)
    episodes = [
        RealEpisode(environment, task, own, pictures and index == 0)
        for index, (environment, own) in enumerate(zip(environments, seeds, strict=True))
    ]
    contexts = _rows([episode.context for episode in episodes])
    observations = [_rows([episode.observation for episode in episodes])]
    actions: list[Tensor] = []
    while running := [row for row, episode in enumerate(episodes) if not episode.is_over]:
        try:
            action = act(observations[-1], contexts, limit - len(actions)).cpu()
        except NumericalFailure as error:
            if not actions:
                raise
            for row in running:
                episodes[row].end(str(error))
            break
        for row in running:
            if action[row].isfinite().all():
                episodes[row].step(action[row].numpy())
            else:
                episodes[row].end("no candidate had a finite imagined return")
        actions.append(action)
        observations.append(_rows([episode.observation for episode in episodes]))
        on_step(len(actions), limit)
    lengths = np.array([episode.length for episode in episodes])
    if not lengths.any():
        raise CorruptData(f"expected episodes of {task.environment}, got none: {episodes[0].note}")
    states, taken = torch.stack(observations, 1), torch.stack(actions, 1)
    return Playthrough(
        states,
        taken,
        lengths,
        np.array([episode.total for episode in episodes]),
        _successes(task, episodes, states, taken, contexts),
        episodes[0].frames,
        tuple(episode.note for episode in episodes),
    )


def _successes(
    task: Task, episodes: Sequence[RealEpisode], states: Tensor, taken: Tensor, contexts: Tensor
) -> NDArray[np.bool_] | None:
    """Return which episodes ended in the goal; none that ended before its time did."""
    whole = np.array([episode.note is None for episode in episodes])
    if task.success is not None:
        every = range(len(episodes))
        last = np.maximum([episode.length for episode in episodes], 1)
        before, after = states[every, last - 1], states[every, last]
        found = task.success(before, taken[every, last - 1], after, contexts)
        return cast(NDArray[np.bool_], np.logical_and(found.numpy(), whole))
    told = [episode.is_success for episode in episodes]
    if all(one is None for one in told):
        return None
    return cast(NDArray[np.bool_], np.array([bool(one) for one in told]) & whole)


def _rows(vectors: list[NDArray[np.floating]]) -> Tensor:
    return torch.from_numpy(np.stack(vectors))
