"""ObjectSlide: push an object so that it slides to a goal that the agent itself cannot reach.

`ObjectSlideEnv` is the scalar Gymnasium environment, `ObjectSlideVectorEnv` many of them stepped
together. Both run the one `advance` of `dynlearn_envs.object_slide.dynamics`.

Shapes: N sub-environments; observation [4] of agent position, agent velocity, object position and
object velocity; action [1]; goal [1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from dynlearn.errors import InvalidInput
from dynlearn_envs.object_slide.dynamics import (
    GOAL_TOLERANCE,
    LINE_END,
    MAX_AGENT_VELOCITY,
    advance,
    start,
)
from dynlearn_envs.object_slide.picture import draw

# The agent must be faster than the object to reach it, and then adds twice its own velocity.
_MAX_OBJECT_VELOCITY = 3 * MAX_AGENT_VELOCITY

Observation = dict[str, NDArray[np.float32]]


def _observation_space() -> gymnasium.Space[Any]:
    high = np.array(
        [LINE_END, MAX_AGENT_VELOCITY, LINE_END, _MAX_OBJECT_VELOCITY], dtype=np.float32
    )
    return Dict(
        {
            "observation": Box(-high, high),
            "achieved_goal": Box(-LINE_END, LINE_END, (1,)),
            "desired_goal": Box(-LINE_END, LINE_END, (1,)),
        }
    )


def _observe(state: Sequence[Any], goal: NDArray[np.float32]) -> Observation:
    observation = np.stack(state, axis=-1, dtype=np.float32, casting="same_kind")
    return {
        "observation": observation,
        "achieved_goal": observation[..., 2:3].copy(),
        "desired_goal": goal.copy(),
    }


def _read_action(action: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    push = np.asarray(action, dtype=np.float64)
    if push.shape != shape or not np.isfinite(push).all():
        raise InvalidInput(
            f"expected finite actions of shape {shape}, got shape {push.shape} "
            f"with {np.count_nonzero(~np.isfinite(push))} numbers that are not finite"
        )
    return push[..., 0]


def _reward(achieved_goal: ArrayLike, desired_goal: ArrayLike) -> NDArray[np.float64]:
    distance = np.abs(np.subtract(achieved_goal, desired_goal))[..., 0]
    return np.where(distance <= GOAL_TOLERANCE, 0.0, -1.0)


class ObjectSlideEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """One agent and one object on a line; see the module's docstring.

    An episode never terminates. `gymnasium.make` truncates it after 30 steps.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None):
        """Make an environment, which draws pictures if ``render_mode`` is ``rgb_array``."""
        self.render_mode = render_mode
        self.observation_space = _observation_space()
        self.action_space = Box(-1.0, 1.0, (1,))
        self._state: Sequence[Any] = ()
        self._goal = np.zeros(1, dtype=np.float32)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Put agent, object and goal at random places, both bodies at rest."""
        super().reset(seed=seed)
        state, goal = start(self.np_random.random(3))
        self._state, self._goal[0], self._steps = tuple(state), goal, 0
        return _observe(self._state, self._goal), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Push the agent with ``action``, [1], for one step.

        Raises:
            InvalidInput: the action has another shape or is not finite, or reset was not called.
        """
        push = _read_action(action, (1,))
        if not self._state:
            raise InvalidInput("expected a reset before the first step; call reset()")
        self._state, _ = advance(np, self._state, push)
        self._steps += 1
        observation = _observe(self._state, self._goal)
        reward = _reward(observation["achieved_goal"], observation["desired_goal"])
        return observation, float(reward), False, False, {}

    def compute_reward(
        self, achieved_goal: ArrayLike, desired_goal: ArrayLike, info: Any
    ) -> NDArray[np.float64]:
        """Return the reward [...] of achieved and desired goals [..., 1]; ``info`` is not used."""
        return _reward(achieved_goal, desired_goal)

    def render(self) -> NDArray[np.uint8] | None:
        """Return a picture, [height, width, 3], or None without a render mode."""
        if self.render_mode is None or not self._state:
            return None
        return draw(self._state[0], self._state[2], self._goal[0], GOAL_TOLERANCE, self._steps)


class ObjectSlideVectorEnv(
    gymnasium.vector.VectorEnv[Observation, NDArray[np.float32], NDArray[Any]]
):
    """N ObjectSlide environments in one, each with a random generator of its own.

    Sub-environment i, reset with a seed, plays bit for bit the episode that `ObjectSlideEnv` plays
    with that seed and the same actions. An episode is truncated after ``max_episode_steps``, and
    nothing resets by itself: call `reset` with ``options={"reset_mask": ...}``.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.DISABLED,
        "episode_seeds": True,
    }

    def __init__(
        self, num_envs: int = 1, max_episode_steps: int = 30, render_mode: str | None = None
    ):
        """Make ``num_envs`` environments, which draw if ``render_mode`` is ``rgb_array``."""
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.single_observation_space = _observation_space()
        self.single_action_space = Box(-1.0, 1.0, (1,))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._max_steps = max_episode_steps
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._state = np.zeros((4, num_envs))
        self._goal = np.zeros((num_envs, 1), dtype=np.float32)
        self._steps = np.full(num_envs, max_episode_steps)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: a seed for each sub-environment, or one number that stands for seed, seed + 1,
                ...; None goes on with the generator that the sub-environment has.
            options: ``reset_mask``, boolean [N], names the sub-environments that start anew;
                without it all do.

        Raises:
            InvalidInput: the seeds or the mask do not fit N sub-environments.
        """
        seeds = self._read_seeds(seed)
        rows = self._read_mask(options)
        uniforms = np.array([self._generator(row, seeds[row]).random(3) for row in rows])
        self._state[:, rows], self._goal[rows, 0] = start(uniforms.T)
        self._steps[rows] = 0
        return _observe(self._state, self._goal), {}  # type: ignore[arg-type]

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Push each agent with its action, [N, 1], for one step.

        Raises:
            InvalidInput: an action has another shape or is not finite, or an episode is over.
        """
        push = _read_action(actions, (self.num_envs, 1))
        over = np.flatnonzero(self._steps >= self._max_steps)
        if over.size:
            raise InvalidInput(
                f"expected running episodes, got {over.size} that are over or not begun, such as "
                f"that of sub-environment {over[0]}; reset them with options['reset_mask']"
            )
        state, _ = advance(np, self._state, push)
        np.stack(state, out=self._state)
        self._steps += 1
        observation = _observe(state, self._goal)
        rewards = _reward(observation["achieved_goal"], observation["desired_goal"])
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        return observation, rewards, terminated, self._steps >= self._max_steps, {}

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """Return a picture, [height, width, 3], of each sub-environment, or None without a mode."""
        if self.render_mode is None:
            return None
        return tuple(
            draw(state[0], state[2], goal[0], GOAL_TOLERANCE, steps)
            for state, goal, steps in zip(self._state.T, self._goal, self._steps, strict=True)
        )

    def _generator(self, row: int, seed: int | None) -> np.random.Generator:
        generator = self._generators[row]
        if seed is not None or generator is None:
            generator = self._generators[row] = seeding.np_random(seed)[0]
        return generator

    def _read_seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return range(seed, seed + self.num_envs)
        if len(seed) != self.num_envs:
            raise InvalidInput(f"expected {self.num_envs} seeds, got {len(seed)}")
        return seed

    def _read_mask(self, options: dict[str, Any] | None) -> NDArray[np.intp]:
        if options is None or "reset_mask" not in options:
            return np.arange(self.num_envs)
        mask = np.asarray(options["reset_mask"])
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_ or not mask.any():
            raise InvalidInput(
                f"expected a reset_mask of booleans of shape ({self.num_envs},) with a True, "
                f"got {mask.dtype} of shape {mask.shape}"
            )
        return np.flatnonzero(mask)
