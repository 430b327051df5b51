"""Playing episodes: what one worker does, with the environment and the policy and nothing else.

An episode depends on the dataset's seed and on its own index alone, so that any worker can play
any block of episodes, once or again, and give the same bits.

Shapes: B episodes of a block, T steps, O observation, A action, G goal.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from dynlearn.config import CollectConfig
from dynlearn.errors import CorruptData, DynlearnError
from dynlearn_envs.environments import (
    Environment,
    VectorEnvironment,
    describe_spaces,
    make_environment,
    make_vector_environment,
)
from dynlearn_envs.policies import Policy, make_policy
from dynlearn_services.collection.recorder import Played, Recorder

_SUCCESS = "is_success"
"""Where environments say in their info whether a step ends in the goal."""


def episode_seeds(seed: int, index: int) -> tuple[int, np.random.Generator]:
    """Return the seed of an episode's environment, and the generator of its policy."""
    root = np.random.SeedSequence([seed, index])
    return int(root.generate_state(1)[0]), np.random.default_rng(root.spawn(1)[0])


class CollectionWorker:
    """Plays blocks of episodes; keeps no state between them but the environment itself."""

    def __init__(self, config: CollectConfig, max_steps: int, import_paths: Sequence[str] = ()):
        """Make ready to play; ``import_paths`` are added to where Python looks for packages.

        Raises:
            NotFound: there is no such environment.
            InvalidInput: environment or policy cannot be made.
        """
        sys.path.extend(path for path in import_paths if path not in sys.path)
        self._config = config
        self._max_steps = max_steps
        self._environment = make_environment(config.env, max_steps, kwargs=config.env_kwargs)
        self._spaces = describe_spaces(self._environment)
        self._policy = make_policy(
            config.policy, config.env, self._spaces[1], config.noise, config.random_share
        )
        self._vector: VectorEnvironment | None = None

    def play(self, indices: Sequence[int]) -> Played:
        """Play the episodes of these indices.

        Raises:
            CorruptData: the environment raised an error, or gave arrays of other shapes than its
                spaces say or numbers that are not finite; the message names the episode.
        """
        vector = self._vector_environment(len(indices))
        if vector is not None:
            try:
                return self._play_together(vector, indices)
            except (Exception, SystemExit) as error:
                # Which of them it was comes out one by one. What the environment was left in is
                # not to be trusted.
                self._vector = None
                self._play_one_by_one(indices)
                raise CorruptData(
                    f"expected {self._config.env} to play episodes {indices[0]} to {indices[-1]} "
                    f"side by side as it plays each alone, got {_describe(error)}"
                ) from error
        return self._play_one_by_one(indices)

    def _play_together(self, vector: VectorEnvironment, indices: Sequence[int]) -> Played:
        pairs = [episode_seeds(self._config.seed, index) for index in indices]
        seeds, generators = [seed for seed, _ in pairs], [generator for _, generator in pairs]
        record = Recorder(len(indices), self._max_steps, *self._spaces)
        play_together(vector, self._policy, seeds, generators, record)
        played = record.played(indices, seeds)
        played.table.check()
        return played

    def _play_one_by_one(self, indices: Sequence[int]) -> Played:
        record = Recorder(len(indices), self._max_steps, *self._spaces)
        seeds = []
        for row, index in enumerate(indices):
            seed, generator = episode_seeds(self._config.seed, index)
            seeds.append(seed)
            try:
                play_one(self._environment, self._policy, seed, generator, record, row)
                record.check(row, index)
            except (Exception, SystemExit) as error:
                raise CorruptData(
                    f"expected {self._config.env} to play episode {index} to its end, got "
                    f"{_describe(error)} at step {record.latest} (its seed is {seed}); mend the "
                    "environment and go on with --resume"
                ) from error
        return record.played(indices, seeds)

    def _vector_environment(self, size: int) -> VectorEnvironment | None:
        if self._vector is None or self._vector.num_envs != size:
            self._vector = make_vector_environment(
                self._config.env, size, self._max_steps, self._config.env_kwargs
            )
        return self._vector


def play_one(
    environment: Environment,
    policy: Policy,
    seed: int,
    generator: np.random.Generator,
    record: Recorder,
    row: int,
) -> None:
    """Play one episode into one row of the record."""
    policy.reset([generator], record.max_steps)
    record.latest = 0
    observation, _ = environment.reset(seed=seed)
    record.state(row, 0, observation)
    for step in range(record.max_steps):
        action = policy.act(_batch_of_one(observation))[0]
        observation, reward, terminated, truncated, info = environment.step(action)
        record.step(row, step, action, reward, terminated, truncated)
        record.state(row, step + 1, observation)
        if terminated or truncated:
            record.lengths[row] = step + 1
            record.success(row, info.get(_SUCCESS))
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
    policy.reset(generators, record.max_steps)
    observation, _ = environment.reset(seed=list(seeds))  # type: ignore[arg-type]
    every = slice(None)
    record.state(every, 0, observation)
    running = record.lengths == 0
    for step in range(record.max_steps):
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


def _describe(error: BaseException) -> str:
    reason = " ".join(str(error).split())[:200]
    if isinstance(error, DynlearnError):
        return reason
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {name: np.asarray(values)[None] for name, values in observation.items()}
    return np.asarray(observation)[None]


def _of_row(observations: Any, row: int) -> Any:
    if isinstance(observations, Mapping):
        return {name: values[row] for name, values in observations.items()}
    return observations[row]
