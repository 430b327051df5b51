"""Environments that misbehave in one episode: one line, with the episode, its seed and its step."""

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from dynlearn.config import CollectConfig
from dynlearn.errors import CorruptData
from dynlearn_services.collection.worker import CollectionWorker, episode_seeds

SEED, BAD, STEP = 5, 3, 2


class Misbehaving(gymnasium.Env[Any, Any]):
    """Counts steps, and does something else at the third step of the fourth episode."""

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, kind: str = "good"):
        self.kind = kind

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.is_bad = seed == episode_seeds(SEED, BAD)[0]
        self.count = 0
        if self.is_bad and self.kind == "reset":
            raise OSError("no such simulator")
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        observation: Any = np.full(2, self.count, np.float32)
        reward: Any = 1.0
        if self.is_bad and self.count == STEP + 1:
            match self.kind:
                case "raise":
                    raise RuntimeError("the simulation\nhas exploded")
                case "exit":
                    sys.exit(3)
                case "nan":
                    observation[1] = np.nan
                case "infinite reward":
                    reward = np.inf
                case "shape":
                    observation = np.zeros(3, np.float32)
                case "strings":
                    observation = np.array(["left", "right"])
                case "rewards":
                    reward = np.ones(2)
                case "four values":
                    return observation, reward, False, {}
                case "nothing":
                    return None
        if self.kind == "reward of one":
            reward = np.array([reward])
        if self.kind == "lists":
            observation = observation.tolist()
        return observation, reward, self.count == 5, False, {}


gymnasium.register("tests/Misbehaving-v0", Misbehaving, max_episode_steps=10)


def worker(kind: str) -> CollectionWorker:
    config = CollectConfig(
        dataset="d", env="tests/Misbehaving-v0", policy="random", seed=SEED,
        env_kwargs={"kind": kind},
    )  # fmt: skip
    return CollectionWorker(config, 10)


@pytest.mark.parametrize(
    ("kind", "what", "step"),
    [
        ("raise", "RuntimeError: the simulation has exploded", STEP),
        ("reset", "OSError: no such simulator", 0),
        ("exit", "SystemExit: 3", STEP),
        ("nan", "observations that are not finite", STEP),
        ("infinite reward", "rewards that are not finite", STEP),
        ("shape", "expected observations of shape", STEP + 1),
        ("strings", "ValueError: could not convert string to float", STEP + 1),
        ("rewards", "ValueError", STEP),
        ("four values", "ValueError: not enough values to unpack", STEP),
        ("nothing", "TypeError: cannot unpack", STEP),
    ],
)
@pytest.mark.parametrize("indices", [range(6), range(3, 4)], ids=["many", "one"])
def test_the_episode_that_fails_is_named_in_one_line(
    kind: str, what: str, step: int, indices: range
) -> None:
    with pytest.raises(CorruptData, match=what) as caught:
        worker(kind).play(indices)
    line = str(caught.value)
    assert "\n" not in line
    seed = episode_seeds(SEED, BAD)[0]
    assert line.startswith(f"expected tests/Misbehaving-v0 to play episode {BAD} to its end, got ")
    assert f" at step {step} (its seed is {seed}); " in line


@pytest.mark.parametrize("kind", ["good", "reward of one", "lists"])
def test_what_is_only_unusual_is_taken(kind: str) -> None:
    table = worker(kind).play(range(6)).table
    assert table.lengths.tolist() == [5] * 6
    assert table.rewards.tolist() == [1.0] * 30
    assert table.observations[:6, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_the_others_are_not_touched_by_it() -> None:
    assert worker("raise").play([0, 1, 2, 4]).table.lengths.tolist() == [5] * 4
