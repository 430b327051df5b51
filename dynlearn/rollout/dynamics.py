"""What can be stepped in imagination: a model here, one on a server, the truth.

Shapes: E members, W rows of each member, K draws of a row, R rows, O observation, A action.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class Dynamics(Protocol):
    """Anything that can be stepped from the full state, row by row."""

    @property
    def members(self) -> int:
        """E, how many members there are to choose from."""

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Return the next observations [R, O] for observations [R, O] and actions [R, A].

        ``member`` [R] says which member answers each row, ``noise`` [R, O] holds the standard
        normal draws of its Gaussian; both None asks for the mixture's mean.
        """


@runtime_checkable
class GroupedDynamics(Protocol):
    """Dynamics that are stepped with rows already sorted by who answers them.

    On a CPU they are stepped from several threads at once.
    """

    @property
    def members(self) -> int:
        """E, how many members there are to choose from."""

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""

    def step_groups(self, observation: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        """Return next observations [E, W, K, O] of observations [E, W, O] and actions [E, W, A].

        Each member answers W rows, and each row has K of them, one for each of its draws of
        ``noise`` [E, W, K, O]; without noise there is one, the mean of the member's Gaussian.
        """


@runtime_checkable
class BoundedDynamics(Protocol):
    """Dynamics that know within which bounds actions mean something."""

    def bounded(self, actions: Tensor) -> Tensor:
        """Return actions [..., A] clipped to the bounds."""


class RowGroups:
    """Dynamics that know rows alone, stepped in groups."""

    def __init__(self, dynamics: Dynamics):
        self._dynamics = dynamics
        self.members = dynamics.members
        self.device = dynamics.device

    def step_groups(self, observation: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        """Do what `GroupedDynamics.step_groups` does, by one step of all rows."""
        members, width, size = observation.shape
        draws = 1 if noise is None else noise.shape[2]
        rows, actions = (
            values.unsqueeze(2).expand(-1, -1, draws, -1).flatten(0, 2)
            for values in (observation, action)
        )
        member = torch.arange(members, device=rows.device).repeat_interleave(width * draws)
        flat = None if noise is None else noise.flatten(0, 2)
        return self._dynamics.step(rows, actions, member, flat).view(members, width, draws, size)

    def step_mean(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the mixture's mean [R, O] after observations [R, O] and actions [R, A]."""
        return self._dynamics.step(observation, action, None, None)


def bounded(dynamics: Dynamics | GroupedDynamics, actions: Tensor) -> Tensor:
    """Return actions [..., A] as dynamics take them, who judge and who step alike."""
    return dynamics.bounded(actions) if isinstance(dynamics, BoundedDynamics) else actions


def step_mean(dynamics: GroupedDynamics, observation: Tensor, action: Tensor) -> Tensor:
    """Return the mixture's mean [R, O] after observations [R, O] and actions [R, A]."""
    if isinstance(dynamics, RowGroups):
        return dynamics.step_mean(observation, action)
    shared = (dynamics.members, -1, -1)
    means = dynamics.step_groups(observation.expand(shared), action.expand(shared), None)
    return means.squeeze(2).mean(0)
