import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space

from dynlearn.errors import InvalidInput, NotFound
from dynlearn.spaces import BoxSpace, DiscreteSpace
from dynlearn_envs.environments import (
    close_environment,
    describe_spaces,
    make_environment,
    make_vector_environment,
    registration,
)
from dynlearn_envs.object_slide.environment import ObjectSlideVectorEnv


class Custom(gymnasium.Env[Any, Any]):
    """An environment of which only the spaces matter."""

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]):
        self.observation_space = observation_space
        self.action_space = action_space


OBSERVATION = tuple(f"observation[{column}]" for column in range(4))


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


class Nested(gymnasium.Env[Any, Any]):
    """Gives back each action as the next observation's part, and says what it was made with."""

    spaces = Dict({"arm": Box(-1, 1, (2,), np.float32), "grip": Discrete(3)})
    observation_space = Dict({"gravity": Box(-50, 50, ()), "last": spaces})
    action_space = spaces

    def __init__(self, g: float = 10.0):
        self.gravity = np.float32(g)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return {"gravity": self.gravity, "last": {"arm": np.zeros(2), "grip": 0}}, {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return {"gravity": self.gravity, "last": action}, 1.0, False, False, {}


class Images(Nested):
    observation_space = Dict({"camera": Box(0, 255, (4, 4, 3), np.uint8)})


@pytest.fixture
def nested() -> Iterator[str]:
    for name, kind in (("Nested-v0", Nested), ("Images-v0", Images)):
        gymnasium.register(name, entry_point=kind, max_episode_steps=5, kwargs={"g": 9.0})
    yield "Nested-v0"
    for name in ("Nested-v0", "Images-v0"):
        del gymnasium.registry[name]


def test_nested_spaces_are_seen_flat(nested: str) -> None:
    environment = make_environment(nested)
    observation, action = describe_spaces(environment)
    assert observation.observation.columns == (
        "gravity", "last.arm[0]", "last.arm[1]", "last.grip=0", "last.grip=1", "last.grip=2",
    )  # fmt: skip
    assert isinstance(action, BoxSpace)
    assert action.one_hot == ((2, 3),)
    assert environment.spec is not None
    assert environment.spec.max_episode_steps == 5
    first, _ = environment.reset(seed=0)
    assert first.tolist() == [9, 0, 0, 1, 0, 0]
    second, reward, *_ = environment.step(np.array([0.5, -0.5, 0, 0, 1], np.float32))
    assert (second.tolist(), reward) == ([9, 0.5, -0.5, 0, 0, 1], 1)
    assert environment.observation_space.contains(second)


def test_environments_are_made_with_what_is_given(nested: str) -> None:
    environment = make_environment(nested, kwargs={"g": 2.0})
    assert environment.reset()[0][0] == 2
    spec = registration(nested)
    assert spec is not None
    assert spec.kwargs == {"g": 9.0}
    assert registration("nowhere/Env-v0") is None
    with pytest.raises(InvalidInput, match=r"TypeError.*give other --env-kwargs than") as caught:
        make_environment(nested, kwargs={"gee": 2.0})
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidInput, match=r"--env-kwargs: .* got max_episode_steps, which is set"):
        make_environment(nested, kwargs={"max_episode_steps": 2})


def test_images_are_refused_by_name(nested: str) -> None:
    with pytest.raises(InvalidInput, match=r"got camera, images of shape \[4, 4, 3\]"):
        make_environment("Images-v0")


def test_an_environment_that_fails_while_it_is_made_is_one_line() -> None:
    def broken() -> None:
        raise RuntimeError("no\nlicence")

    gymnasium.register("Broken-v0", entry_point=broken, max_episode_steps=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="got Broken-v0: RuntimeError: no licence"):
        make_environment("Broken-v0")
    del gymnasium.registry["Broken-v0"]


class _Odd(gymnasium.Env[Any, Any]):
    action_space = Box(-1, 1, (1,))


class _Spaceless(_Odd):
    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not\nyet")


class _Exits(_Odd):
    def __init__(self) -> None:
        sys.exit(4)


class _Closes(_Odd):
    observation_space = Box(-1, 1, (1,))

    def close(self) -> None:
        sys.exit(5)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (_Odd, "AttributeError: '_Odd' object has no attribute 'observation_space'"),
        (_Spaceless, "RuntimeError: not yet"),
        (_Exits, "SystemExit: 4"),
    ],
)
def test_an_environment_that_is_none_is_one_line(kind: type, reason: str) -> None:
    gymnasium.register("Odd-v0", kind, max_episode_steps=5)
    with pytest.raises(InvalidInput, match=f"got Odd-v0: {reason}") as caught:
        make_environment("Odd-v0")
    assert "\n" not in str(caught.value)
    # Only where MuJoCo could not draw.
    assert "MUJOCO_GL" not in str(caught.value)
    del gymnasium.registry["Odd-v0"]


def test_what_fails_when_closed_is_closed() -> None:
    gymnasium.register("Odd-v0", _Closes, max_episode_steps=5)
    close_environment(make_environment("Odd-v0"))
    del gymnasium.registry["Odd-v0"]


@pytest.mark.parametrize("statement", ["raise RuntimeError('in\\nside')", "exit(3)", "1 +"])
def test_a_package_that_cannot_be_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    (tmp_path / "odd_package.py").write_text(statement)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NotFound, match="before the colon of odd_package:Odd-v0: ") as told:
        make_environment("odd_package:Odd-v0")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (Discrete(2), ("observation=0", "observation=1")),
        (Box(0, 1, (1, 2)), ("observation[0,0]", "observation[0,1]")),
        (Dict({"observation": Box(-1, 1, (1,))}), ("observation[0]",)),
        (
            goals(2, 1),
            ("achieved_goal[0]", "achieved_goal[1]", "desired_goal[0]", *OBSERVATION),
        ),
        (
            goals(1, 1, picture=Box(0, 1, (1,))),
            ("achieved_goal[0]", "desired_goal[0]", *OBSERVATION, "picture[0]"),
        ),
    ],
)
def test_other_observations_are_described_by_their_columns(
    space: Space[Any], names: tuple[str, ...]
) -> None:
    observation, _ = describe_spaces(Custom(space, Discrete(2)))
    assert observation.goal is None
    assert sorted(observation.observation.columns) == sorted(names)


@pytest.mark.parametrize(
    ("space", "whole"),
    [(MultiDiscrete([2, 2]), 4), (Box(0, 1, (2, 2)), 0), (Box(0, 5, (2,), np.int64), 2)],
)
def test_other_actions_are_described_by_their_columns(space: Space[Any], whole: int) -> None:
    _, action = describe_spaces(Custom(Box(-1, 1, (4,)), space))
    assert isinstance(action, BoxSpace)
    assert len(action.whole) == whole


def test_where_mujoco_cannot_draw_it_is_said_how_to_mend_it() -> None:
    code = (
        "from dynlearn_envs.environments import make_environment\n"
        "from dynlearn.errors import InvalidInput\n"
        "try: make_environment('FetchPickAndPlace-v4')\n"
        "except InvalidInput as error: print(error)"
    )
    # Of which there is no library, or a name that is unknown.
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"MUJOCO_GL": "nothing"},
    )
    assert "expected gymnasium_robotics to be imported, got RuntimeError" in result.stdout
    assert "set MUJOCO_GL=egl, or go without pictures" in result.stdout
    assert result.stdout.count("\n") == 1


def test_making_a_fetch_environment_prints_nothing() -> None:
    code = (
        "from dynlearn_envs.environments import make_environment;"
        "make_environment('FetchPickAndPlace-v4')"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("", "")
