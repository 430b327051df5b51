"""Real episodes, played side by side.

Shapes: S episodes, T steps, O observation, A action, G context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynlearn.errors import InvalidInput
from dynlearn_envs.environments import Environment, draw_frame, make_environment

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
        successes: whether the last step ended in the goal, [S]; None where the task has no such
            thing.
        frames: pictures of the first episode, where they were asked for.
        version: of the model, where one was used.
    """

    observations: Tensor
    actions: Tensor
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    successes: NDArray[np.bool_] | None
    frames: Frames
    version: str = ""

    @property
    def success_share(self) -> float | None:
        """The share of episodes that ended in the goal."""
        return None if self.successes is None else float(self.successes.mean())


@contextmanager
def making(env_id: str, count: int, pictures: bool = False) -> Iterator[list[Environment]]:
    """Make so many environments, the first one to be drawn where ``pictures``; close them after.

    Raises:
        NotFound: no environment has this id.
        InvalidInput: it cannot be made here.
    """
    environments: list[Environment] = []
    try:
        for index in range(count):
            render_mode = "rgb_array" if pictures and not index else None
            environments.append(make_environment(env_id, render_mode=render_mode))
        yield environments
    finally:
        for environment in environments:
            environment.close()


def play(
    task: Task,
    environments: Sequence[Environment],
    act: Act,
    seed: int,
    pictures: bool = False,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Playthrough:
    """Play an episode of each environment, side by side, until all are over.

    The start states depend on ``seed`` alone, so that different planners meet the same ones.

    Args:
        task: of the environments.
        environments: S of one kind.
        act: gives the actions.
        seed: of the start states.
        pictures: whether to draw the first.
        on_step: called with the steps done and the most there can be.

    Raises:
        InvalidInput: the episodes have no end.
    """
    spec = environments[0].spec
    limit = spec.max_episode_steps if spec else None
    if limit is None:
        raise InvalidInput(
            f"expected an environment whose episodes end, got {task.environment} without "
            "max_episode_steps; register it with one"
        )
    seeds = np.random.SeedSequence(seed).generate_state(len(environments)).tolist()
    raw = [env.reset(seed=s)[0] for env, s in zip(environments, seeds, strict=True)]
    frames: Frames = [draw_frame(environments[0])] if pictures else []
    running = np.ones(len(environments), dtype=bool)
    returns, lengths = np.zeros(len(environments)), np.zeros(len(environments), dtype=np.int64)
    observations: list[Tensor] = [_vectors(raw)]
    actions: list[Tensor] = []
    contexts = torch.from_numpy(np.stack([task.read_context(one) for one in raw])).float()
    while running.any():
        action = act(observations[-1], contexts, limit - len(actions)).cpu()
        for i in np.flatnonzero(running).tolist():
            raw[i], reward, terminated, truncated, _ = environments[i].step(action[i].numpy())
            returns[i] += reward
            lengths[i] += 1
            running[i] = not (terminated or truncated)
            if pictures and i == 0:
                frames.append(draw_frame(environments[0]))
        actions.append(action)
        observations.append(_vectors(raw))
        on_step(len(actions), limit)
    every = range(len(environments))
    states, taken = torch.stack(observations, 1), torch.stack(actions, 1)
    successes = None
    if task.success is not None:
        before, after = states[every, lengths - 1], states[every, lengths]
        successes = task.success(before, taken[every, lengths - 1], after, contexts).numpy()
    return Playthrough(states, taken, lengths, returns, successes, frames)


def _vectors(raw: list[Any]) -> Tensor:
    rows = [one["observation"] if isinstance(one, dict) else one for one in raw]
    return torch.from_numpy(np.stack(rows)).float()
