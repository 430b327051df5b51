"""Trajectories: imagined next observations, and the rollout that gives them.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dynlearn.rollout.dynamics import Dynamics, GroupedDynamics, bounded
from dynlearn.rollout.imagination import Imagination
from dynlearn.rollout.schedule import finish

if TYPE_CHECKING:
    from dynlearn.config.choices import Propagation


@dataclass(frozen=True)
class Trajectory:
    """Imagined next observations.

    Attributes:
        particles: [S, P, N, H, O].
    """

    particles: Tensor

    @cached_property
    def mean(self) -> Tensor:
        """The particles' mean, [S, P, H, O]."""
        return self.particles.mean(2)

    @cached_property
    def variance(self) -> Tensor:
        """The diagonal of the covariance, [S, P, H, O]."""
        return self.particles.var(2, correction=0)

    @cached_property
    def covariance(self) -> Tensor:
        """The particles' covariance, [S, P, H, O, O]; zero with one particle."""
        deviation = self.particles - self.mean.unsqueeze(2)
        return torch.einsum("spnhi,spnhj->sphij", deviation, deviation) / self.particles.shape[2]


def rollout(
    dynamics: Dynamics | GroupedDynamics,
    observation: Tensor,
    actions: Tensor,
    particles: int,
    propagation: Propagation,
    seed: int,
) -> Trajectory:
    """Imagine trajectories from start states [S, O] under actions [S, P, H, A].

    Members are spread evenly over the particles of each candidate: with ``ts1`` anew at each step,
    with ``tsinf`` once for the whole trajectory. ``moment_matching`` is ``ts1`` with the particles
    of each candidate redrawn after each step from the Gaussian of their mean and covariance.
    ``expectation`` follows the mixture's mean, where all particles would be one and so only one is
    kept (Chua et al. 2018, section 5).

    Raises:
        InvalidInput: a shape or the seed is wrong, or ``particles`` is below one.
    """
    return finish(rollout_in_turns(dynamics, observation, actions, particles, propagation, seed))


@torch.no_grad()
def rollout_in_turns(
    dynamics: Dynamics | GroupedDynamics,
    observation: Tensor,
    actions: Tensor,
    particles: int,
    propagation: Propagation,
    seed: int,
    pause: Callable[[], bool] = lambda: False,
) -> Generator[None, None, Trajectory]:
    """Do what `rollout` does, and return what it returns; yield whenever ``pause`` says so."""
    actions = bounded(dynamics, actions)
    imagination = Imagination(dynamics, observation, actions, particles, propagation, seed)
    starts, candidates, horizon, _ = actions.shape
    particles, size = imagination.particles, observation.shape[-1]
    found = observation.new_empty(starts * candidates, particles, horizon, size)

    def imagine(chunks: range) -> Iterator[None]:
        part = found[imagination.sequences(chunks)]
        for step, state in enumerate(imagination.steps(chunks)):
            part[:, :, step] = state
            yield

    yield from imagination.turns(imagine, pause)
    return Trajectory(found.view(starts, candidates, particles, horizon, size))
