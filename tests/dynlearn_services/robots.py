"""An environment with nested spaces, in which everything but the reward is chance.

It is registered on import, as a user's own package would.
"""

from typing import Any

import gymnasium
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple


class Robot(gymnasium.Env[Any, Any]):
    """Rewards each step by what it was made with."""

    action_space = Dict({"arm": Box(-1, 1, (2,)), "grip": Discrete(3)})
    observation_space = Tuple((MultiDiscrete([2, 2]), Box(-9, 9, ()), action_space))

    def __init__(self, g: float = 10.0):
        self._g = g

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return self.observation_space.sample(), self._g, False, False, {}


gymnasium.register("Robot-v0", entry_point="robots:Robot", max_episode_steps=3)
