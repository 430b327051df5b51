"""Faults of environments: in words, and what they mean for a collection."""

from __future__ import annotations

import re

from dynlearn.config import CollectConfig
from dynlearn.data.faults import EpisodeFault
from dynlearn.errors import CorruptData, DynlearnError
from dynlearn_envs.seeds import episode_seeds

ATTEMPTS = 10
"""How many seeds are played in the place of one another, before the environment is given up."""
_LONGEST = 200
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]+")


def describe(error: BaseException) -> str:
    """Return what an environment has raised, in a line that is the same in every process."""
    reason = _ADDRESS.sub("0x", " ".join(str(error).split()))[:_LONGEST]
    if isinstance(error, DynlearnError):
        return reason
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def fault_of(
    config: CollectConfig, episode: int, attempt: int, step: int, what: str, is_cut: bool
) -> EpisodeFault:
    """Return what to record of one attempt at an episode.

    Raises:
        CorruptData: the collection is to stop there, or has no more seeds to try.
    """
    seed, next_seed = (
        episode_seeds(config.seed, episode, number, config.seed_range)[0]
        for number in (attempt, attempt + 1)
    )
    where = f"got {what} at step {step} (its seed is {seed})"
    if config.on_error == "stop":
        raise CorruptData(
            f"expected {config.env} to play episode {episode} to its end, {where}; mend the "
            "environment, or choose --on-error cut or skip, and go on with --resume"
        )
    if is_cut:
        return EpisodeFault(episode=episode, seed=seed, step=step, what=what, treatment="cut")
    if attempt + 1 == ATTEMPTS:
        raise CorruptData(
            f"expected {config.env} to play episode {episode} with one of {ATTEMPTS} seeds, "
            f"{where} with the last; mend the environment and go on with --resume"
        )
    return EpisodeFault(
        episode=episode,
        seed=seed,
        step=step,
        what=what,
        treatment="skipped",
        replaced_by=next_seed,
    )
