"""Environments that count, so that a test sees at once where a transition does not belong.

An observation is (steps since the reset, the length that this episode will have); the length, 1 to
8, comes from the seed, and the episode terminates there; an even one is a success. They are
registered on import, as a user's own package would.
"""

import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

Observation = NDArray[np.float32]


class Counting(gymnasium.Env[Observation, np.int64]):
    """Counts; see the module's docstring."""

    observation_space = Box(0.0, 99.0, (2,))
    action_space = Discrete(3, start=-1)

    def __init__(self, step_seconds: float = 0.0, nan_at: int | None = None, width: int = 2):
        self._step_seconds, self._nan_at, self._width = step_seconds, nan_at, width
        self._count = self._length = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._count, self._length = 0, int(self.np_random.integers(1, 9))
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        assert action in self.action_space
        time.sleep(self._step_seconds)
        self._count += 1
        reward = float("nan") if self._count == self._nan_at else float(action)
        is_over = self._count == self._length
        info = {"is_success": is_over and self._length % 2 == 0}
        return self._observe(), reward, is_over, False, info

    def _observe(self) -> Observation:
        return np.array([self._count, self._length], dtype=np.float32)[: self._width]


class CountingTogether(SyncVectorEnv):
    """Many of them side by side, which reset in their next step, as Gymnasium's default is."""

    metadata: ClassVar[dict[str, Any]] = {"episode_seeds": True}
    mode = AutoresetMode.NEXT_STEP

    def __init__(self, num_envs: int, max_episode_steps: int):
        def make() -> gymnasium.Env[Observation, np.int64]:
            return TimeLimit(Counting(), max_episode_steps)

        super().__init__([make] * num_envs, autoreset_mode=self.mode)


class CountingSameStep(CountingTogether):
    """They reset in the very step that ends an episode."""

    mode = AutoresetMode.SAME_STEP


class CountingDisabled(CountingTogether):
    """They never reset by themselves, and fail if stepped on."""

    mode = AutoresetMode.DISABLED


def _register(name: str, vector: type | None = None, limit: int | None = 6, **options: Any) -> None:
    gymnasium.register(
        f"{name}-v0",
        entry_point=Counting,
        vector_entry_point=vector,  # type: ignore[arg-type]
        max_episode_steps=limit,
        kwargs=options,
    )


_register("Counting")
_register("CountingNextStep", CountingTogether)
_register("CountingSameStep", CountingSameStep)
_register("CountingDisabled", CountingDisabled)
_register("CountingSlowly", step_seconds=0.01)
_register("CountingToNan", nan_at=3)
_register("CountingTooNarrow", width=1)
_register("CountingForever", limit=None)
