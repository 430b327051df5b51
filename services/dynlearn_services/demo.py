"""The demo: collect, train, serve and plan, each for real, from nothing to a table.

``slide`` ends with a planner on the served model that solves ObjectSlide, beside the same planner
on the true dynamics and random actions; ``fetch`` with the open-loop error of a full-state model of
FetchPickAndPlace.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlearn.client import DynamicsClient
from dynlearn.config import CollectConfig, PlanConfig, ServeConfig, TrainConfig
from dynlearn.data.store import EpisodeStore
from dynlearn.data.transitions import cut_transitions
from dynlearn.errors import InvalidInput, nearest
from dynlearn.evaluation import Metrics
from dynlearn.planning import CEM
from dynlearn.registry import ModelVersion
from dynlearn.task import find_task
from dynlearn.training.dataset import split_dataset
from dynlearn.training.hooks import Hooks
from dynlearn.training.provenance import read_training
from dynlearn_envs.environments import describe_spaces
from dynlearn_envs.fetch_pick_and_place.task import FETCH_PICK_AND_PLACE
from dynlearn_envs.object_slide.truth import TrueSlide
from dynlearn_envs.registration import OBJECT_SLIDE
from dynlearn_services.collection.run import collect
from dynlearn_services.home import Home
from dynlearn_services.planning.dynamics import estimator_of
from dynlearn_services.planning.episodes import Playthrough, making, play
from dynlearn_services.planning.run import run_plan
from dynlearn_services.progress import ProgressBar, collection_figures, training_figures
from dynlearn_services.server import running_server
from dynlearn_services.training.run import run_training

Result = tuple[dict[str, Any], str]


def run_demo(name: str, home: Home, seed: int) -> Result:
    """Run a demo in a home of its own, ``demo/<name>`` under ``home``, emptied before.

    Returns:
        The figures, and a text to print.

    Raises:
        InvalidInput: there is no demo of that name.
    """
    demos = {"slide": _slide, "fetch": _fetch}
    if name not in demos:
        raise InvalidInput(f"--env: expected slide or fetch, got {name!r}; {nearest(name, demos)}")
    home.require_writable()
    place = Home(home.root / "demo" / name)
    shutil.rmtree(place.root, ignore_errors=True)
    place.require_writable()
    began = time.monotonic()
    content, text = demos[name](place, seed)
    content["seconds"] = round(time.monotonic() - began, 1)
    return content, f"{text}\n\n{content['seconds']:.0f} s in all; everything is in {place.root}"


def _slide(home: Home, seed: int) -> Result:
    version, metrics = _learn(
        home,
        CollectConfig(
            dataset="slide", env=OBJECT_SLIDE, episodes=6000, noise=0.5, random_share=0.3,
            episodes_per_shard=2000, seed=seed,
        ),
        TrainConfig(
            dataset="slide", model="slide", max_updates=18_000, learning_rate=2e-3, seed=seed
        ),
    )  # fmt: skip
    plan = PlanConfig(env=OBJECT_SLIDE, model="slide", episodes=20, reward="smooth", seed=seed)
    with running_server(ServeConfig(model="slide", port=0), home.models) as url:
        _say(f"3: serving version {version.version} at {url}")
        _say("4: planning 20 real episodes over HTTP")
        with ProgressBar("plan", 30, "steps") as bar:
            learned = run_plan(
                plan.model_copy(update={"url": url}),
                home,
                home.root / "pictures",
                lambda done, most: bar.show(done, {}, most),
            )
    rows = {
        "learned model over HTTP": learned,
        "true dynamics": play_truth(plan),
        "random actions": play_random(plan),
    }
    content = {
        "success": {name: played.success_share for name, played in rows.items()},
        "return": {name: float(played.returns.mean()) for name, played in rows.items()},
        "nll": metrics.nll,
    }
    lines = [
        f"ObjectSlide, {plan.episodes} start states: object within 0.5 of the goal at the end",
        "",
        f"{'planner':<26}{'success':>9}{'mean return':>14}",
        *(
            f"{name:<26}{played.success_share:>9.0%}{played.returns.mean():>14.1f}"
            for name, played in rows.items()
        ),
        "",
        f"model card and figures: {version.folder}",
        f"animation and imagined against real: {home.root / 'pictures'}",
    ]
    return content, "\n".join(lines)


def _fetch(home: Home, seed: int) -> Result:
    version, metrics = _learn(
        home,
        CollectConfig(
            dataset="fetch", env=FETCH_PICK_AND_PLACE, episodes=1500, noise=0.3,
            random_share=0.2, seed=seed,
        ),
        TrainConfig(
            dataset="fetch", model="fetch", hidden=(256, 256, 256), max_updates=8_000,
            validate_every=250, patience=12, seed=seed,
        ),
    )  # fmt: skip
    with running_server(ServeConfig(model="fetch", port=0), home.models) as url:
        _say(f"3: serving version {version.version} at {url}, and asking it")
        error, rows, seconds = _query(home, version, url)
    steps = [step for step in (1, 5, 15) if step <= len(metrics.open_loop_rmse)]
    model = {step: 1000 * metrics.open_loop_rmse[step - 1] for step in steps}
    still = {step: 1000 * metrics.open_loop_rmse_of_no_change[step - 1] for step in steps}
    content = {"open_loop_mm": model, "no_change_mm": still, "queried_rmse": error}
    lines = [
        f"FetchPickAndPlace, {metrics.episodes} held-out episodes: error of the object's position",
        "",
        f"{'steps ahead':<14}{'model, mm':>12}{'no change, mm':>16}",
        *(f"{step:<14}{model[step]:>12.2f}{still[step]:>16.2f}" for step in steps),
        "",
        f"asked over HTTP: {rows} transitions in {seconds:.2f} s, "
        f"RMSE of the full state {error:.4g}",
        f"model card and figures: {version.folder}",
    ]
    return content, "\n".join(lines)


def _learn(
    home: Home, config: CollectConfig, training: TrainConfig
) -> tuple[ModelVersion, Metrics]:
    """Collect and train, with progress bars."""
    _say(f"1: collecting {config.episodes} episodes of {config.env} with Ray workers")
    with ProgressBar("collect", config.episodes, "episodes") as bar:
        collect(
            config,
            home.dataset(config.dataset),
            lambda progress: bar.show(progress.episodes, collection_figures(progress)),
        )
    _say(f"2: fitting {training.members} members with {training.objective}")
    with ProgressBar("train", training.max_updates, "updates") as bar:
        return run_training(
            training,
            home,
            Hooks(
                on_progress=lambda progress: bar.show(
                    progress.update, training_figures(progress), progress.updates
                )
            ),
        )


def play_truth(plan: PlanConfig) -> Playthrough:
    """Play ObjectSlide with the planner on the true dynamics."""
    task = find_task(plan.env)
    with making(plan.env, plan.episodes) as environments:
        _, action_space = describe_spaces(environments[0])
        estimator = estimator_of(plan, TrueSlide(), task.reward(plan.reward))
        planner = CEM(estimator, action_space, plan, plan.seed)
        return play(task, environments, planner.plan, plan.seed)


def play_random(plan: PlanConfig) -> Playthrough:
    """Play ObjectSlide with uniformly random actions."""
    generator = torch.Generator().manual_seed(plan.seed)

    def act(observation: Tensor, context: Tensor, steps_left: int) -> Tensor:
        return 2 * torch.rand(len(observation), 1, generator=generator) - 1

    with making(plan.env, plan.episodes) as environments:
        return play(find_task(plan.env), environments, act, plan.seed)


def _query(home: Home, version: ModelVersion, url: str) -> tuple[float, int, float]:
    """Ask the server for its held-out transitions: RMSE over all columns, rows, seconds."""
    training, _ = read_training(version.folder)
    store = EpisodeStore.open(home.dataset(training.dataset))
    store, split = split_dataset(training, store)
    table = store.table(split.test)
    transitions = cut_transitions(table, store.header.action_space)
    with DynamicsClient(url, version.name) as client:
        began = time.perf_counter()
        prediction = client.predict(transitions.observation, transitions.action)
        seconds = time.perf_counter() - began
    error = np.sqrt(np.square(prediction.mean - transitions.next_observation).mean())
    return float(error), len(transitions), seconds


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
