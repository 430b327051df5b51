"""Playing episodes: what one worker does, with the environment and the policy and nothing else.

An episode depends on the dataset's seed and on its own index alone, so that any worker can play
any block of episodes, once or again, and give the same bits. That holds for what becomes of one
that fails, too: the next seed of it, or its end, is a function of the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from dynlearn.config import CollectConfig
from dynlearn.data.faults import EpisodeFault
from dynlearn.errors import CorruptData
from dynlearn_envs.environments import (
    Environment,
    VectorEnvironment,
    close_environment,
    describe_spaces,
    make_environment,
    make_vector_environment,
)
from dynlearn_envs.policies import Policy, make_policy
from dynlearn_envs.seeds import episode_seeds
from dynlearn_services.collection.faults import ATTEMPTS, describe, fault_of
from dynlearn_services.collection.playing import play_one, play_together
from dynlearn_services.collection.recorder import Played, Recorder
from dynlearn_services.collection.watch import Place, Watch, period_of

Condemned = Mapping[tuple[int, int], EpisodeFault]
"""What is known of (episode, attempt) that no process survives."""


class CollectionWorker:
    """Plays blocks of episodes; keeps no state between them but the environment itself."""

    def __init__(
        self,
        config: CollectConfig,
        max_steps: int,
        import_paths: Sequence[str] = (),
        key: str | None = None,
    ):
        """Make ready to play; the environment is made when it is first needed.

        Args:
            config: what to play.
            max_steps: the longest episode.
            import_paths: where Python looks for packages, before all other places.
            key: under which it is to note where it is, if anybody looks.
        """
        sys.path[:] = [*import_paths, *(path for path in sys.path if path not in import_paths)]
        self._config = config
        self._max_steps = max_steps
        self._environment: Environment | None = None
        self._vector: VectorEnvironment | None = None
        self._policy: Policy
        self._key = key
        self._watch: Watch | None = None
        self._episode: tuple[int | None, int] | None = None
        self._record: Recorder

    def play(
        self,
        indices: Sequence[int],
        condemned: Condemned = MappingProxyType({}),
        carefully: bool = False,
    ) -> Played:
        """Play the episodes of these indices.

        Args:
            indices: of the episodes.
            condemned: attempts that are not to be made, as they end the process.
            carefully: one by one, whatever the environment could.

        Raises:
            NotFound: there is no such environment.
            InvalidInput: environment or policy cannot be made.
            CorruptData: the environment raised an error, or gave arrays of other shapes than its
                spaces say or numbers that are not finite, and no more is to be tried; the message
                names the episode.
        """
        self._open()
        if self._key is not None and self._watch is None:
            self._watch = Watch(self._key, period_of(self._config.step_timeout), self._place)
        try:
            return self._play(indices, condemned, carefully)
        finally:
            self._episode = None

    def _play(self, indices: Sequence[int], condemned: Condemned, carefully: bool) -> Played:
        vector = None if carefully or condemned else self._vector_environment(len(indices))
        if vector is not None:
            try:
                return self._play_together(vector, indices)
            except BaseException as error:
                # Which of them it was comes out one by one. What the environment was left in is
                # not to be trusted.
                self._vector = None
                played = self._play_one_by_one(indices, condemned, carefully)
                if played.faults:
                    return played
                raise CorruptData(
                    f"expected {self._config.env} to play episodes {indices[0]} to {indices[-1]} "
                    f"side by side as it plays each alone, got {describe(error)}"
                ) from error
        return self._play_one_by_one(indices, condemned, carefully)

    def _play_together(self, vector: VectorEnvironment, indices: Sequence[int]) -> Played:
        pairs = [self._seeds(index, 0) for index in indices]
        seeds, generators = [seed for seed, _ in pairs], [generator for _, generator in pairs]
        record = self._record = Recorder(len(indices), self._max_steps, *self._spaces)
        self._episode = None, 0
        play_together(vector, self._policy, seeds, generators, record)
        played = record.played(indices, seeds)
        played.table.check()
        return played

    def _play_one_by_one(
        self, indices: Sequence[int], condemned: Condemned, carefully: bool
    ) -> Played:
        record = self._record = Recorder(len(indices), self._max_steps, *self._spaces)
        seeds: list[int] = []
        faults: list[EpisodeFault] = []
        for row, index in enumerate(indices):
            for attempt in range(ATTEMPTS):
                fault = condemned.get((index, attempt))
                fault = fault or self._attempt(row, index, attempt, carefully)
                if fault is not None:
                    faults.append(fault)
                if fault is None or fault.treatment == "cut":
                    break
            seeds.append(self._seeds(index, attempt)[0])
        return record.played(indices, seeds, faults)

    def _attempt(self, row: int, index: int, attempt: int, carefully: bool) -> EpisodeFault | None:
        """Play an episode; return what befell it, after which the environment is made anew."""
        environment, record = self._open(), self._record
        on_step = self._watch.note if self._watch and carefully else None
        seed, generator = self._seeds(index, attempt)
        self._episode = index, attempt
        try:
            play_one(environment, self._policy, seed, generator, record, row, on_step)
            record.check(row, int(record.lengths[row]))
            return None
        except BaseException as error:
            if hasattr(error, "ray_terminate_msg"):
                # SIGTERM from outside, which is none of the environment's doing.
                raise
            what = describe(error)
        finally:
            self._episode = None
        self._close()
        try:
            # What went wrong before, and was not asked about until the end.
            record.check(row, record.good_steps)
        except CorruptData as error:
            what = describe(error)
        good = max(0, record.good_steps)
        is_cut = self._config.on_error == "cut" and good > 0
        fault = fault_of(self._config, index, attempt, good, what, is_cut)
        if is_cut:
            record.cut(row)
        return fault

    def _place(self) -> Place | None:
        """Return where it is, whichever thread asks."""
        episode = self._episode
        return episode and Place(*episode, self._record.good_steps)

    def _seeds(self, index: int, attempt: int) -> tuple[int, np.random.Generator]:
        config = self._config
        return episode_seeds(config.seed, index, attempt, config.seed_range)

    def _open(self) -> Environment:
        if self._environment is None:
            config = self._config
            environment = make_environment(config.env, self._max_steps, kwargs=config.env_kwargs)
            self._spaces = describe_spaces(environment)
            self._policy = make_policy(
                config.policy, config.env, self._spaces[1], config.noise, config.random_share
            )
            self._environment = environment
        return self._environment

    def _close(self) -> None:
        """Let go of an environment that has failed, and may fail in that as well."""
        if self._environment is not None:
            close_environment(self._environment)
            self._environment = None

    def _vector_environment(self, size: int) -> VectorEnvironment | None:
        if self._vector is None or self._vector.num_envs != size:
            self._vector = make_vector_environment(
                self._config.env, size, self._max_steps, self._config.env_kwargs
            )
        return self._vector
