from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box
from torch import Tensor

from dynlearn.errors import CorruptData, NumericalFailure
from dynlearn.task import bare_task, find_task
from dynlearn_envs.environments import describe_spaces
from dynlearn_envs.object_slide.truth import TrueSlide
from dynlearn_envs.registration import OBJECT_SLIDE
from dynlearn_services.planning.episodes import Playthrough, making, play


def push(observation: Tensor, context: Tensor, steps_left: int) -> Tensor:
    return torch.ones(len(observation), 1)


def played(episodes: int, seed: int) -> Playthrough:
    with making(OBJECT_SLIDE, episodes) as environments:
        return play(find_task(OBJECT_SLIDE), environments, push, seed)


def test_episodes_follow_from_the_seed_alone() -> None:
    first, again = (played(3, 5) for _ in range(2))
    assert torch.equal(first.observations, again.observations)
    more = played(4, 5)
    assert torch.equal(first.observations, more.observations[:3])
    assert not torch.equal(first.observations, played(3, 6).observations)


def test_what_was_played_is_what_the_physics_say() -> None:
    found = played(2, 0)
    assert found.lengths.tolist() == [30, 30]
    expected = TrueSlide().step(found.observations[:, 0], found.actions[:, 0], None, None)
    torch.testing.assert_close(found.observations[:, 1], expected)
    assert (found.returns <= 0).all()
    assert not found.frames


class Failing(gymnasium.Env[Any, Any]):
    """Goes to the right; the episodes of some seeds fail in their second step."""

    observation_space = Box(-9, 9, (1,))
    action_space = Box(-1, 1, (1,))

    def __init__(self, failing: frozenset[int], succeeds: bool = True):
        self._failing, self._succeeds = failing, succeeds
        self.spec = EnvSpec("Failing-v0", max_episode_steps=3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._fails, self._steps = seed in self._failing, 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        place = np.array([self._steps], np.float32)
        if self._fails and self._steps == 2:
            place[0] = np.nan
        info = {"is_success": self._steps == 3} if self._succeeds else {}
        return place, 1.0, False, self._steps == 3, info


SEEDS = np.random.SeedSequence(0).generate_state(3).tolist()


def play_failing(failing: set[int], act: Any = push, **options: Any) -> Playthrough:
    """Play three episodes, of which some fail."""
    environments = [Failing(frozenset(SEEDS[row] for row in failing), **options) for _ in range(3)]
    task = bare_task("Failing-v0", describe_spaces(environments[0])[0])
    return play(task, environments, act, seed=0)


def test_an_episode_that_fails_takes_nothing_from_the_others() -> None:
    whole, found = play_failing(set()), play_failing({1})
    assert whole.notes == (None,) * 3
    assert [note is None for note in found.notes] == [True, False, True]
    assert found.lengths.tolist() == [3, 1, 3]
    assert found.returns.tolist() == [3, 1, 3]
    for row in (0, 2):
        assert torch.equal(found.observations[row], whole.observations[row])
    assert found.observations.isfinite().all()


def test_the_environment_says_what_success_is_where_no_task_does() -> None:
    assert play_failing({1}).successes.tolist() == [True, False, True]
    assert play_failing(set(), succeeds=False).successes is None


def test_a_start_state_without_an_action_ends_its_episode() -> None:
    def act(observation: Tensor, context: Tensor, steps_left: int) -> Tensor:
        action = torch.ones(3, 1)
        action[0] = torch.nan if steps_left < 3 else 1
        return action

    found = play_failing(set(), act)
    assert found.lengths.tolist() == [1, 3, 3]
    assert found.notes[0] == "ended after 1 steps: no candidate had a finite imagined return"


def test_a_planner_that_gives_up_late_leaves_what_was_played() -> None:
    def act(observation: Tensor, context: Tensor, steps_left: int) -> Tensor:
        if steps_left < 3:
            raise NumericalFailure("expected finite imagined returns, got none")
        return torch.ones(3, 1)

    found = play_failing(set(), act)
    assert found.lengths.tolist() == [1, 1, 1]
    assert all("got none" in str(note) for note in found.notes)

    def at_once(observation: Tensor, context: Tensor, steps_left: int) -> Tensor:
        raise NumericalFailure("expected finite imagined returns, got none")

    with pytest.raises(NumericalFailure):
        play_failing(set(), at_once)


def test_environments_that_all_fail_at_once_are_an_error() -> None:
    class Broken(Failing):
        def reset(self, **options: Any) -> Any:
            raise ValueError("no seed above 99")

    task = bare_task("Failing-v0", describe_spaces(Broken(frozenset()))[0])
    with pytest.raises(CorruptData, match=r"got none: ended after 0 steps: .* no seed above 99"):
        play(task, [Broken(frozenset())], push, 0)
