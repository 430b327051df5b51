"""Lookout: what the driver makes of where a worker says it is."""

from __future__ import annotations

import logging
import math
import time

from dynlearn.config import CollectConfig
from dynlearn_envs.seeds import episode_seeds
from dynlearn_services.collection.blocks import Loss, Task
from dynlearn_services.collection.watch import Place, last_sighting, period_of

_SECONDS_UNTIL_WARNING = 30.0
_SECONDS_OF_GRACE = 10.0
"""Beyond the time of a step, in which a worker must note where it is."""

_log = logging.getLogger(__name__)


class Lookout:
    """Looks after one worker: warns of a step that takes long, and finds one that takes too long.

    Attributes:
        period: seconds between two looks.
    """

    def __init__(self, config: CollectConfig, key: str):
        """Look at the worker that notes where it is under ``key``."""
        self.period = period_of(config.step_timeout)
        self._config, self._key = config, key
        self._limit = config.step_timeout or math.inf
        self._begun = self._looked = self._beat_at = time.monotonic()
        self._beat = 0
        self._warned: Place | None = None

    def begin(self) -> None:
        """Begin with another task."""
        self._begun = time.monotonic()

    def look(self, task: Task) -> Loss | None:
        """Return why the worker must be ended that plays a task, if it must."""
        now = time.monotonic()
        is_late = now - self._begun > min(self._limit, _SECONDS_UNTIL_WARNING)
        if not is_late or now - self._looked < self.period:
            return None
        self._looked = now
        sighting = last_sighting(self._key)
        if sighting is None:
            return None
        if sighting.beat != self._beat:
            self._beat, self._beat_at = sighting.beat, now
        # Nothing is noted where a step lets no other thread run.
        silent, place = now - self._beat_at, sighting.place
        seconds = sighting.seconds if place else 0.0
        if seconds > self._limit or silent > self._limit + _SECONDS_OF_GRACE:
            # The last word is old, unless it comes before every step.
            is_sure = seconds > self._limit or task.carefully
            reason = f"a step of more than {self._limit:g} s"
            return Loss(reason, place if is_sure else None, is_stuck=True)
        if place and place != self._warned and seconds + silent > _SECONDS_UNTIL_WARNING:
            self._warned = place
            self._warn(place, task, seconds + silent)
        return None

    def _warn(self, place: Place, task: Task, seconds: float) -> None:
        config = self._config
        episode = f"episodes {task.indices[0]} to {task.indices[-1]}"
        if place.episode is not None:
            seed, _ = episode_seeds(config.seed, place.episode, place.attempt, config.seed_range)
            episode = f"episode {place.episode} (its seed is {seed})"
        _log.warning(
            "warning: %s has been at step %d of %s for %.0f s%s",
            config.env,
            max(0, place.step),
            episode,
            seconds,
            "" if config.step_timeout else "; --step-timeout ends steps that take too long",
        )
