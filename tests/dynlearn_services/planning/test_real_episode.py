from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from dynlearn.task import bare_task
from dynlearn_envs.environments import describe_spaces
from dynlearn_services.planning.real_episode import RealEpisode


class Drive(gymnasium.Env[Any, Any]):
    """Goes on by its action; its third step is whatever ``third`` makes of it."""

    observation_space = Box(-9, 9, (2,), np.float64)
    action_space = Box(-1, 1, (1,))

    def __init__(self, third: Callable[[Any], Any] = lambda step: step, start: Any = (0, 0)):
        self._third, self._start = third, start
        self._place = 0.0
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.array(self._start, dtype=float), {}

    def step(self, action: Any) -> Any:
        self._place += float(action[0])
        self._steps += 1
        info = {"is_success": np.float32(self._place > 1)}
        step = np.array([self._place, 1]), 1.0, False, False, info
        return self._third(step) if self._steps == 3 else step


def played(environment: Drive, steps: int = 4) -> RealEpisode:
    task = bare_task("elsewhere/Drive-v0", describe_spaces(environment)[0])
    episode = RealEpisode(environment, task, seed=0)
    for _ in range(steps):
        if not episode.is_over:
            episode.step(np.ones(1, np.float32))
    return episode


def test_an_episode_is_told_step_by_step() -> None:
    episode = played(Drive())
    assert (episode.length, episode.total, episode.is_over) == (4, 4.0, False)
    assert (episode.observation.tolist(), episode.note) == ([4, 1], None)
    assert episode.is_success is True
    assert played(Drive(), steps=1).is_success is False
    assert played(Drive(), steps=0).is_success is None


def raising(step: Any) -> Any:
    raise RuntimeError("the motor\nburns")


@pytest.mark.parametrize(
    ("third", "note"),
    [
        (raising, "the environment raised RuntimeError: the motor burns"),
        (
            lambda step: (np.array([np.nan, 0]), *step[1:]),
            "finite numbers .*s observation, got NaN",
        ),
        (lambda step: (np.zeros(3), *step[1:]), r"numbers of shape \[2\] .* of shape \[3\]"),
        (lambda step: (np.array(["a", "b"]), *step[1:]), "numbers of shape .* got <U1"),
        (lambda step: (step[0], np.inf, *step[2:]), "finite numbers .*s reward"),
        (lambda step: (step[0], [1, 2], *step[2:]), r"reward, got int64 of shape \[2\]"),
        (lambda step: step[:4], "raised ValueError: not enough values to unpack"),
        (lambda step: None, "raised TypeError: cannot unpack"),
    ],
)
def test_what_fails_ends_it_with_a_note(third: Callable[[Any], Any], note: str) -> None:
    episode = played(Drive(third))
    assert episode.is_over
    assert episode.note is not None
    assert episode.note.startswith("ended after 2 steps: ")
    assert "\n" not in episode.note
    with pytest.raises(AssertionError, match=note):
        raise AssertionError(episode.note)
    # What was before stays: no planner is asked about what is no number.
    assert (episode.length, episode.total, episode.observation.tolist()) == (2, 2.0, [2, 1])


def test_a_reset_that_fails_ends_it_before_it_begins() -> None:
    episode = played(Drive(start=(np.nan, 0)))
    assert episode.is_over
    assert (episode.length, episode.observation.tolist()) == (0, [0, 0])
    assert episode.note == (
        "ended after 0 steps: expected finite numbers as the environment's observation, "
        "got NaN or infinity"
    )


def test_lists_and_rewards_in_arrays_are_taken() -> None:
    episode = played(Drive(lambda step: ([3, 4], np.array([2.0]), *step[2:])), steps=3)
    assert (episode.note, episode.observation.tolist(), episode.total) == (None, [3, 4], 4.0)
