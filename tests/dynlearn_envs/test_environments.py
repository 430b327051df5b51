import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space

from dynlearn.errors import InvalidInput, NotFound
from dynlearn.spaces import BoxSpace, DiscreteSpace
from dynlearn_envs.environments import (
    describe_spaces,
    make_environment,
    make_vector_environment,
)
from dynlearn_envs.object_slide.environment import ObjectSlideVectorEnv


class Custom(gymnasium.Env[Any, Any]):
    """An environment of which only the spaces matter."""

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]):
        self.observation_space = observation_space
        self.action_space = action_space


def goals(achieved: int, desired: int, **more: Space[Any]) -> Dict:
    parts: dict[str, Space[Any]] = {
        "observation": Box(-1, 1, (4,)),
        "achieved_goal": Box(-1, 1, (achieved,)),
        "desired_goal": Box(-2, 2, (desired,)),
    }
    return Dict(parts | more)


@pytest.mark.parametrize(
    ("env_id", "limit"),
    [
        ("dynlearn/ObjectSlide-v1", 30),
        ("dynlearn_envs:dynlearn/ObjectSlide-v1", 30),
        ("FetchPickAndPlace-v4", 50),
        ("FetchReach-v4", 50),
        ("CartPole-v0", 200),  # out of date, of which Gymnasium would warn
        ("Pendulum-v1", 200),
    ],
)
def test_any_gymnasium_id_is_made_and_plays_without_a_warning(env_id: str, limit: int) -> None:
    environment = make_environment(env_id)
    assert environment.spec is not None
    assert environment.spec.max_episode_steps == limit
    environment.reset(seed=0)
    environment.action_space.seed(0)
    for _ in range(3):
        environment.step(environment.action_space.sample())
    environment.close()


def test_max_steps_truncates() -> None:
    environment = make_environment("dynlearn/ObjectSlide-v1", max_steps=2)
    environment.reset(seed=0)
    ends = [environment.step(np.zeros(1, dtype=np.float32))[3] for _ in range(2)]
    assert ends == [False, True]


@pytest.mark.parametrize(
    ("env_id", "hint"),
    [
        ("dynlearn/ObjectSlid-v1", "did you mean dynlearn/ObjectSlide-v1"),
        ("FetchPickPlace-v4", "FetchPickAndPlace-v4"),
        ("CartPole", "CartPole-v1"),
        ("qqqqqqqqqqqqqqqqqqqq", "known: FetchPickAndPlace-v4, dynlearn/ObjectSlide-v1"),
        ("a malformed id", "known: "),
        ("", "known: "),
        ("no_such_package:Env-v0", "No module named 'no_such_package'"),
        (".relative:Env-v0", "installed package before the colon"),
    ],
)
def test_unknown_ids_are_not_found_and_near_ones_are_named(env_id: str, hint: str) -> None:
    for make in (make_environment, lambda env_id: make_vector_environment(env_id, 2)):
        with pytest.raises(NotFound) as caught:
            make(env_id)
        message = str(caught.value)
        assert hint in message
        assert "\n" not in message


def test_an_environment_that_lacks_a_package_is_refused() -> None:
    with pytest.raises(InvalidInput, match="mujoco_py") as caught:
        make_environment("FetchPickAndPlace-v1")
    assert "\n" not in str(caught.value)


def test_an_environment_without_a_limit_needs_one() -> None:
    with pytest.raises(InvalidInput, match=r"expected max_steps \(--max-steps\) for Blackjack-v1"):
        make_environment("Blackjack-v1")
    make_environment("Blackjack-v1", max_steps=10)


def test_only_vector_forms_that_keep_episode_seeds_are_used() -> None:
    environment = make_vector_environment("dynlearn/ObjectSlide-v1", 3)
    assert isinstance(environment, ObjectSlideVectorEnv)
    assert environment.num_envs == 3
    assert make_vector_environment("CartPole-v1", 3) is None
    assert make_vector_environment("FetchPickAndPlace-v4", 3) is None


def test_max_steps_truncates_a_vector_environment() -> None:
    environment = make_vector_environment("dynlearn/ObjectSlide-v1", 2, max_steps=1)
    assert environment is not None
    environment.reset(seed=0)
    assert environment.step(np.zeros((2, 1), dtype=np.float32))[3].all()


def test_spaces_of_goal_environments_are_described() -> None:
    observation, action = describe_spaces(make_environment("dynlearn/ObjectSlide-v1"))
    assert observation.observation == BoxSpace(low=(-5, -5, -5, -15), high=(5, 5, 5, 15))
    assert observation.goal == BoxSpace(low=(-5,), high=(5,))
    assert action == BoxSpace(low=(-1,), high=(1,))


def test_spaces_without_goals_and_discrete_actions_are_described() -> None:
    environment = Custom(Box(-np.inf, 2, (3,), np.float64), Discrete(3, start=-1))
    observation, action = describe_spaces(environment)
    assert observation.observation == BoxSpace(low=(-np.inf,) * 3, high=(2,) * 3, dtype="float64")
    assert observation.goal is None
    assert action == DiscreteSpace(n=3, start=-1)


@pytest.mark.parametrize(
    "space",
    [
        Discrete(4),
        Box(0, 1, (2, 2)),
        Box(0, 1, ()),
        Dict({"observation": Box(-1, 1, (4,))}),
        goals(2, 3),
        goals(2, 2, picture=Box(0, 1, (2,))),
        goals(2, 2, observation=Box(0, 1, (2, 2))),
    ],
)
def test_other_observations_are_refused(space: Space[Any]) -> None:
    with pytest.raises(InvalidInput, match="expected observations that are a 1-D Box") as caught:
        describe_spaces(Custom(space, Discrete(2)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "space",
    [MultiDiscrete([2, 2]), Box(0, 1, (2, 2)), Box(0, 5, (2,), np.int64), Dict({"a": Discrete(2)})],
)
def test_other_actions_are_refused(space: Space[Any]) -> None:
    with pytest.raises(InvalidInput, match="expected actions that are Discrete or a 1-D Box"):
        describe_spaces(Custom(Box(-1, 1, (4,)), space))


def test_making_a_fetch_environment_prints_nothing() -> None:
    code = (
        "from dynlearn_envs.environments import make_environment;"
        "make_environment('FetchPickAndPlace-v4')"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("", "")
