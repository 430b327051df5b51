"""Seeds of episodes: functions of a dataset's or a plan's seed, in an environment's own range."""

from __future__ import annotations

import numpy as np

SeedRange = tuple[int, int]
"""The lowest and the highest seed."""


def episode_seeds(
    seed: int, index: int, attempt: int = 0, within: SeedRange | None = None
) -> tuple[int, np.random.Generator]:
    """Return the seed of an episode's environment, and the generator of its policy.

    Args:
        seed: of the dataset.
        index: of the episode.
        attempt: how many seeds of this episode were given up before.
        within: what the environment takes; 0 to 2³² - 1 if absent. Attempts then have one seed
            after the other, so that none comes twice before all had their turn.
    """
    root = np.random.SeedSequence([seed, index, attempt])
    generator = np.random.default_rng(root.spawn(1)[0])
    if within is None:
        return int(root.generate_state(1)[0]), generator
    first = np.random.SeedSequence([seed, index])
    return _place(first, attempt, within), generator


def start_seeds(seed: int, count: int, within: SeedRange | None = None) -> list[int]:
    """Return the seeds of ``count`` episodes of a plan, apart as far as ``within`` has room."""
    root = np.random.SeedSequence(seed)
    if within is None:
        return [int(drawn) for drawn in root.generate_state(count)]
    return [_place(root, position, within) for position in range(count)]


def _place(root: np.random.SeedSequence, position: int, within: SeedRange) -> int:
    low, high = within
    drawn = int(root.generate_state(1, np.uint64)[0])
    return low + (drawn + position) % (high - low + 1)
