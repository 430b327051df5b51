from pathlib import Path
from typing import Any

import pytest

import dynlearn_services.planning.episodes as episodes
from dynlearn.config import PlanConfig
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.registry import Registry
from dynlearn_envs.environments import Environment, describe_spaces
from dynlearn_envs.registration import OBJECT_SLIDE
from dynlearn_services.demo import play_random, play_truth
from dynlearn_services.home import Home
from dynlearn_services.planning.episodes import making
from dynlearn_services.planning.run import run_plan

PLAN = PlanConfig(model="none", env=OBJECT_SLIDE, episodes=20, reward="smooth", seed=0)


@pytest.fixture
def slide_home(tmp_path: Path) -> Path:
    """A home with an untrained model of ObjectSlide."""
    with making(OBJECT_SLIDE, 1) as (environment,):
        observation_space, action_space = describe_spaces(environment)
    every = tuple(range(4))
    spec = ModelSpec(
        observation_space=observation_space,
        action_space=action_space,
        observation_columns=every,
        target_columns=every,
        members=2,
        hidden=(4,),
    )
    Registry(tmp_path / "models").publish("slide", DynamicsModel(spec).save)
    return tmp_path


def test_the_planner_solves_the_environment_on_the_true_dynamics() -> None:
    assert play_truth(PLAN).successes.mean() >= 0.77


def test_random_actions_do_not() -> None:
    assert play_random(PLAN).successes.mean() <= 0.2


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_every_named_reward_can_be_planned_for(reward: str) -> None:
    few = PLAN.model_copy(update={"reward": reward, "episodes": 2, "candidates": 16, "elites": 4})
    assert play_truth(few).returns.shape == (2,)


def test_no_environment_is_made_only_to_be_asked(
    slide_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    make = episodes.make_environment

    def counting(env_id: str, **options: Any) -> Environment:
        made.append(env_id)
        return make(env_id, **options)

    monkeypatch.setattr(episodes, "make_environment", counting)
    plan = PLAN.model_copy(
        update={"model": "slide", "episodes": 3, "candidates": 8, "elites": 2, "iterations": 1}
    )
    assert run_plan(plan, Home(slide_home), None).returns.shape == (3,)
    assert made == [OBJECT_SLIDE] * 3
