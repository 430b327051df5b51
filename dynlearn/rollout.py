"""Imagined trajectories: many action sequences from many states, with particles.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action,
R = S·P·N rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from dynlearn.errors import InvalidInput

if TYPE_CHECKING:
    from dynlearn.config import Propagation


class Dynamics(Protocol):
    """Anything that can be stepped from the full state: a model here, one served, the truth."""

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
    def covariance(self) -> Tensor:
        """The particles' covariance, [S, P, H, O, O]; zero with one particle."""
        deviation = self.particles - self.mean.unsqueeze(2)
        return torch.einsum("spnhi,spnhj->sphij", deviation, deviation) / self.particles.shape[2]


def seeded(seed: int) -> torch.Generator:
    """Return a generator on the CPU that begins at ``seed``.

    Raises:
        InvalidInput: the seed is not between 0 and 2⁶³ - 1.
    """
    if not 0 <= seed < 2**63:
        raise InvalidInput(f"seed: expected 0 to {2**63 - 1}, got {seed}")
    return torch.Generator().manual_seed(seed)


@torch.inference_mode()
def rollout(
    dynamics: Dynamics,
    observation: Tensor,
    actions: Tensor,
    particles: int,
    propagation: Propagation,
    generator: torch.Generator,
) -> Trajectory:
    """Imagine trajectories from start states [S, O] under actions [S, P, H, A].

    Members are spread evenly over each candidate's particles: with ``ts1`` anew at each step, with
    ``tsinf`` once for the whole trajectory. ``expectation`` follows the mixture's mean, where all
    particles would be one and so only one is kept (Chua et al. 2018, section 5).

    Raises:
        InvalidInput: a shape is wrong, or ``particles`` is below one.
    """
    _check_shapes(observation, actions, particles)
    starts, candidates, horizon, _ = actions.shape
    if propagation == "expectation":
        particles = 1
    rows = starts * candidates * particles
    device, size = observation.device, observation.shape[-1]
    state = observation[:, None, None].expand(-1, candidates, particles, -1).reshape(rows, size)
    states = state.new_empty(horizon, rows, size)
    member = None
    for step in range(horizon):
        action = actions[:, :, step, None].expand(-1, -1, particles, -1).reshape(rows, -1)
        noise = None
        if propagation != "expectation":
            if member is None or propagation == "ts1":
                member = _draw_members(
                    starts * candidates, particles, dynamics.members, generator
                ).to(device)
            noise = torch.randn(rows, size, generator=generator).to(device)
        state = dynamics.step(state, action, member, noise)
        states[step] = state
    return Trajectory(
        states.view(horizon, starts, candidates, particles, size).permute(1, 2, 3, 0, 4)
    )


def _draw_members(
    sequences: int, particles: int, members: int, generator: torch.Generator
) -> Tensor:
    """Return a member for each particle of each sequence, flat; each is as likely as the others."""
    rank = torch.rand(sequences, particles, generator=generator).argsort(-1)
    offset = torch.randint(members, (sequences, 1), generator=generator)
    return ((rank + offset) % members).flatten()


def _check_shapes(observation: Tensor, actions: Tensor, particles: int) -> None:
    if observation.dim() != 2:
        raise InvalidInput(
            f"observation: expected [starts, columns], got {list(observation.shape)}"
        )
    if actions.dim() != 4 or len(actions) != len(observation) or 0 in actions.shape:
        raise InvalidInput(
            f"actions: expected [{len(observation)} starts, candidates, horizon, columns], "
            f"none of them zero, got {list(actions.shape)}"
        )
    if particles < 1:
        raise InvalidInput(f"particles: expected at least 1, got {particles}")
