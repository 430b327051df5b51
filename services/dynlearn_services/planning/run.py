"""Closed-loop episodes: a planner over a learned model in the real environment.

Shapes: S episodes side by side, O observation, A action, G context.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynlearn.client import DynamicsClient
from dynlearn.compute import pick_device
from dynlearn.config import PlanConfig, ServeConfig
from dynlearn.errors import InvalidInput
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.reward import LearnedReward
from dynlearn.planning import CEM
from dynlearn.planning.remote import RemoteDynamics
from dynlearn.registry import Registry
from dynlearn.rollout.imagination import Dynamics
from dynlearn.spaces import ActionSpace
from dynlearn.task import LEARNED, Task, bare_task, find_task, installed_tasks
from dynlearn_envs.environments import describe_spaces, draw_frame, make_environment
from dynlearn_services.home import Home

if TYPE_CHECKING:
    from dynlearn.task import TransitionFunction

    Frames = list[NDArray[np.uint8]]

    Act = Callable[[Tensor, Tensor, int], Tensor]
    # (observation [S, O], context [S, G], steps left) -> actions [S, A]


_MOST_ROWS = ServeConfig.model_fields["max_rows"].default
# For all candidates of an iteration at once.
_SECONDS = 600.0


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


def run_plan(
    config: PlanConfig,
    home: Home,
    folder: Path | None,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Playthrough:
    """Play episodes with CEM over a model, and draw what happened.

    Args:
        config: what to play, with which model and planner.
        home: where local models are.
        folder: where to write ``episode.gif`` and ``imagined.png``; nothing is drawn if None.
        on_step: called with the steps done and the most there can be.

    Raises:
        InvalidInput: the model is not of this environment, or cannot be planned with.
        NotFound: there is no such model, environment or task.
        Unavailable: the server cannot be reached.
    """
    from dynlearn_services.planning.pictures import draw_imagined, save_gif

    if folder is not None and sys.platform == "linux" and "DISPLAY" not in os.environ:
        # Read when MuJoCo is imported: the way to draw without a screen.
        os.environ.setdefault("MUJOCO_GL", "egl")
    task = _task(config)
    with _dynamics(config, home, task) as (dynamics, reward, action_space, version):
        planner = CEM(dynamics, reward, action_space, config, config.seed)
        played = play(task, planner.plan, config.episodes, config.seed, folder is not None, on_step)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            save_gif(played.frames, folder / "episode.gif")
            length = played.lengths[0]
            draw_imagined(
                dynamics,
                task,
                played.observations[0, : length + 1],
                played.actions[0, :length],
                config.seed,
                folder / "imagined.png",
            )
    return replace(played, version=version)


def play(
    task: Task,
    act: Act,
    episodes: int,
    seed: int,
    pictures: bool = False,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Playthrough:
    """Play episodes side by side in the real environment until all are over.

    The start states depend on ``seed`` alone, so that different planners meet the same ones.
    """
    environments = [
        make_environment(task.environment, render_mode="rgb_array" if pictures and not i else None)
        for i in range(episodes)
    ]
    try:
        return _play(task, environments, act, seed, pictures, on_step)
    finally:
        for environment in environments:
            environment.close()


def _play(
    task: Task,
    environments: list[Any],
    act: Act,
    seed: int,
    pictures: bool,
    on_step: Callable[[int, int], None],
) -> Playthrough:
    limit = environments[0].spec.max_episode_steps
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
        for i in np.flatnonzero(running):
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


def _task(config: PlanConfig) -> Task:
    """Return the environment's task; where none is installed, what a learned reward leaves to say.

    Raises:
        NotFound: there is no task, and another reward.
    """
    if config.reward != LEARNED or config.env in installed_tasks():
        return find_task(config.env)
    environment = make_environment(config.env)
    try:
        observation, _ = describe_spaces(environment)
    finally:
        environment.close()
    return bare_task(config.env, observation.observation.size)


@contextmanager
def _dynamics(
    config: PlanConfig, home: Home, task: Task
) -> Iterator[tuple[Dynamics, TransitionFunction | str, ActionSpace, str]]:
    """Give the dynamics and the reward that a configuration names, the actions and the version."""
    if config.url is not None:
        name, _, number = config.model.partition("/")
        with (
            DynamicsClient(config.url, name, number or None, timeout=_SECONDS) as client,
            client.pin() as pinned,
        ):
            spec = pinned.spec
            _require_same_spaces(config.env, spec.observation_size, spec.action_space)
            name = config.reward or next(iter(task.rewards))
            is_known = name in spec.rewards.get(config.env, ())
            rows = config.episodes * config.candidates * config.particles
            # Else it is judged here, step by step: one of a task that is installed only here, or of
            # more rows than a server takes at once.
            is_judged_there = name == LEARNED or (is_known and rows <= _MOST_ROWS)
            reward = name if is_judged_there else task.reward(name)
            yield RemoteDynamics(pinned, config.env), reward, spec.action_space, spec.version
        return
    version = Registry(home.models).resolve(config.model)
    version.verify()
    model = DynamicsModel.load(version.folder, pick_device(config.device), config.precision)
    _require_same_spaces(config.env, model.spec.observation_size, model.spec.action_space)
    model.require_full_state()
    learned = LearnedReward.load(version.folder, model) if config.reward == LEARNED else None
    if config.reward == LEARNED and learned is None:
        raise InvalidInput(
            f"reward: expected a model that has learned one, got {config.model}; train one with "
            "--learn-reward"
        )
    yield model, learned or task.reward(config.reward), model.spec.action_space, version.version


def _require_same_spaces(env_id: str, observation_size: int, action_space: ActionSpace) -> None:
    environment = make_environment(env_id)
    try:
        observation, action = describe_spaces(environment)
    finally:
        environment.close()
    if observation.observation.size != observation_size or action != action_space:
        raise InvalidInput(
            f"expected a model of {env_id} ({observation.observation.size} observation columns, "
            f"{action.size} action columns), got one of {observation_size} and "
            f"{action_space.size}; train one on a dataset of that environment"
        )
