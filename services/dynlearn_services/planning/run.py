"""Closed-loop episodes: a planner over a learned model in the real environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from dynlearn.config import PlanConfig
from dynlearn.planning import CEM
from dynlearn.task import LEARNED, Task, bare_task, find_task, installed_tasks
from dynlearn_envs.environments import describe_spaces
from dynlearn_services.home import Home
from dynlearn_services.planning.dynamics import open_estimator
from dynlearn_services.planning.episodes import Playthrough, making, play


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
    pictures = folder is not None
    if pictures and sys.platform == "linux" and "DISPLAY" not in os.environ:
        # Read when MuJoCo is imported: the way to draw without a screen.
        os.environ.setdefault("MUJOCO_GL", "egl")
    with ExitStack() as stack:
        # One first, to be asked before the work of making all.
        (first,) = stack.enter_context(making(config.env, 1, pictures))
        spaces = describe_spaces(first)
        task = _task(config, spaces[0].observation.size)
        estimator, version = stack.enter_context(open_estimator(config, home, task, spaces))
        planner = CEM(estimator, spaces[1], config, config.seed)
        others = stack.enter_context(making(config.env, config.episodes - 1))
        played = play(task, [first, *others], planner.plan, config.seed, pictures, on_step)
        if folder is not None:
            from dynlearn_services.planning.pictures import draw_imagined, save_gif

            folder.mkdir(parents=True, exist_ok=True)
            save_gif(played.frames, folder / "episode.gif")
            length = played.lengths[0]
            draw_imagined(
                estimator.dynamics,
                task,
                played.observations[0, : length + 1],
                played.actions[0, :length],
                config.seed,
                folder / "imagined.png",
            )
    return replace(played, version=version)


def _task(config: PlanConfig, columns: int) -> Task:
    """Return the environment's task; where none is installed, what a learned reward leaves to say.

    Raises:
        NotFound: there is no task, and another reward.
    """
    if config.reward != LEARNED or config.env in installed_tasks():
        return find_task(config.env)
    return bare_task(config.env, columns)
