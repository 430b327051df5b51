"""Playing episodes into a record: one alone, or many side by side.

Shapes: B episodes of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from dynlearn_envs.environments import Environment, VectorEnvironment
from dynlearn_envs.policies import Policy
from dynlearn_services.collection.recorder import Recorder

_SUCCESS = "is_success"
"""Where environments say in their info whether a step ends in the goal."""


def play_one(
    environment: Environment,
    policy: Policy,
    seed: int,
    generator: np.random.Generator,
    record: Recorder,
    row: int,
    on_step: Callable[[], None] | None = None,
) -> None:
    """Play one episode into one row of the record; call ``on_step`` before each step and reset."""
    record.begin(row)
    policy.reset([generator], record.max_steps)
    if on_step:
        on_step()
    observation, _ = environment.reset(seed=seed)
    record.state(row, 0, observation)
    for step in range(record.max_steps):
        record.good_steps = step
        action = policy.act(_batch_of_one(observation))[0]
        if on_step:
            on_step()
        observation, reward, terminated, truncated, info = environment.step(action)
        record.step(row, step, action, reward, terminated, truncated)
        record.state(row, step + 1, observation)
        if terminated or truncated:
            record.success(row, info.get(_SUCCESS))
            record.lengths[row] = record.good_steps = step + 1
            return


def play_together(
    environment: VectorEnvironment,
    policy: Policy,
    seeds: Sequence[int],
    generators: Sequence[np.random.Generator],
    record: Recorder,
) -> None:
    """Play B episodes side by side until the last has ended.

    All rows are taken down at every step; what comes after a row's end, such as the false
    transition of an automatic reset, lies beyond its length and is never read.
    """
    mode = environment.metadata["autoreset_mode"]
    every = slice(None)
    record.begin(every)
    policy.reset(generators, record.max_steps)
    observation, _ = environment.reset(seed=list(seeds))  # type: ignore[arg-type]
    record.state(every, 0, observation)
    running = record.lengths == 0
    for step in range(record.max_steps):
        record.good_steps = step
        action = policy.act(observation)
        observation, reward, terminated, truncated, info = environment.step(action)
        over = terminated | truncated
        record.step(every, step, action, reward, terminated, truncated)
        record.state(every, step + 1, observation)
        ending = np.flatnonzero(over & running)
        if mode == AutoresetMode.SAME_STEP:
            for row in ending.tolist():
                record.state(row, step + 1, _of_row(info["final_obs"], row))
        told = info.get("final_info", info).get(_SUCCESS)
        if told is not None:
            for row in ending.tolist():
                record.success(row, told[row])
        record.lengths[ending] = step + 1
        running &= ~over
        if not running.any():
            return
        if mode == AutoresetMode.DISABLED and over.any():
            observation, _ = environment.reset(options={"reset_mask": over})


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {name: np.asarray(values)[None] for name, values in observation.items()}
    return np.asarray(observation)[None]


def _of_row(observations: Any, row: int) -> Any:
    if isinstance(observations, Mapping):
        return {name: values[row] for name, values in observations.items()}
    return observations[row]
