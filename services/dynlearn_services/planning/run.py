"""Closed-loop episodes: a planner over a learned model in the real environment."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from dynlearn.config import PlanConfig
from dynlearn.errors import InvalidInput
from dynlearn.planning import CEM
from dynlearn.spaces import ObservationSpace, require_bounded_reals
from dynlearn.task import ENTRY_POINT_GROUP, LEARNED, Task, bare_task, installed_tasks
from dynlearn.training.provenance import MadeWith
from dynlearn_envs.environments import describe_spaces
from dynlearn_envs.seeds import SeedRange
from dynlearn_services.home import Home
from dynlearn_services.planning.dynamics import find_model
from dynlearn_services.planning.episodes import Playthrough, making, play

_log = logging.getLogger(__name__)


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
        InvalidInput: the model is not of this environment, or cannot be planned with, or the
            reward is of no task.
        NotFound: there is no such model or environment.
        CorruptData: no environment can take a single step.
        NumericalFailure: there is no action for any of the start states.
        Unavailable: the server cannot be reached.
    """
    pictures = folder is not None
    if pictures and sys.platform == "linux" and "DISPLAY" not in os.environ:
        # Read when MuJoCo is imported: the way to draw without a screen.
        os.environ.setdefault("MUJOCO_GL", "egl")
    with find_model(config, home) as model, ExitStack() as stack:
        kwargs = _kwargs(config, model.data)
        make = partial(making, config.env, max_steps=config.max_steps, kwargs=kwargs)
        # One first, to be asked before the work of making all.
        (first,) = stack.enter_context(make(1, pictures))
        spaces = describe_spaces(first)
        require_bounded_reals(spaces[1])
        task = _task(config, spaces[0])
        estimator, version = model.open(config, task, spaces)
        planner = CEM(estimator, spaces[1], config, config.seed)
        others = stack.enter_context(make(config.episodes - 1))
        seed_range = _seed_range(config, model.data)
        played = play(
            task, [first, *others], planner.plan, config.seed, pictures, on_step, seed_range
        )
        if folder is not None and played.lengths[0]:
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


def _kwargs(config: PlanConfig, data: MadeWith) -> Mapping[str, JsonValue]:
    """Return what the environment is made with: what was asked for, or else as in the data."""
    known = data.kwargs if data.environment == config.env else {}
    if config.env_kwargs is None:
        if known:
            _log.info("%s is made with %s, as the model's data were", config.env, known)
        return known
    if data.environment == config.env and config.env_kwargs != known:
        _log.warning(
            "warning: expected %s as in the model's data, made with %s, got --env-kwargs %s; the "
            "model has learned from another",
            config.env,
            known,
            config.env_kwargs,
        )
    return config.env_kwargs


def _seed_range(config: PlanConfig, data: MadeWith) -> SeedRange | None:
    """Return which seeds the environment takes: as was said, or else as in the data."""
    if config.seed_range is None and data.environment == config.env:
        return data.seed_range
    return config.seed_range


def _task(config: PlanConfig, space: ObservationSpace) -> Task:
    """Return the environment's task; where none is installed, what a learned reward leaves to say.

    Raises:
        InvalidInput: there is no task, and another reward.
    """
    task = installed_tasks().get(config.env)
    if task is not None:
        return task
    if config.reward != LEARNED:
        raise InvalidInput(
            f"--reward: expected {LEARNED} for {config.env}, for which no task with rewards of its "
            f"own is installed, got {config.reward or 'none'}; train the model with "
            f"--learn-reward, or add a task through the entry-point group {ENTRY_POINT_GROUP}"
        )
    return bare_task(config.env, space)
