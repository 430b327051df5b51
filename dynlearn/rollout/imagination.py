"""Imagined trajectories: many action sequences from many states, with particles.

The sequences are cut into chunks, each with random numbers of its own, so that neither the order
nor how many are imagined at once changes the answer, and memory is bounded by what is imagined at
once.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action, E members,
C sequences and R = C·N rows that are imagined at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from dynlearn.errors import InvalidInput
from dynlearn.rollout.draws import ChunkDraws, Hand, hands
from dynlearn.seeds import ROLLOUT, check_seed, derived_generator

if TYPE_CHECKING:
    from dynlearn.config.choices import Propagation

# Few enough for every thread to have some, even where there are many.
_CHUNK_ROWS = 1024
# Enough rows for Python's part in a step to be small, and few enough to come back in good time to
# whatever else waits for the thread.
_CHUNKS_ON_ONE_THREAD = 2
# Where a call costs much whatever its size: on a GPU, or to a server.
_CHUNKS_IN_ONE_CALL = 32

Result = TypeVar("Result")


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


@runtime_checkable
class GroupedDynamics(Protocol):
    """Dynamics that can be stepped with rows already sorted by who answers them.

    On a CPU they are stepped from several threads at once.
    """

    def step_groups(self, observation: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        """Return next observations [E, W, K, O] of observations [E, W, O] and actions [E, W, A].

        Each member answers W rows, and each row has K of them, one for each of its draws of
        ``noise`` [E, W, K, O]; they are those of `Dynamics.step` for the same member and noise.
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
    def variance(self) -> Tensor:
        """The diagonal of the covariance, [S, P, H, O]."""
        return self.particles.var(2, correction=0)

    @cached_property
    def covariance(self) -> Tensor:
        """The particles' covariance, [S, P, H, O, O]; zero with one particle."""
        deviation = self.particles - self.mean.unsqueeze(2)
        return torch.einsum("spnhi,spnhj->sphij", deviation, deviation) / self.particles.shape[2]


def rollout(
    dynamics: Dynamics,
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


@torch.inference_mode()
def rollout_in_turns(
    dynamics: Dynamics,
    observation: Tensor,
    actions: Tensor,
    particles: int,
    propagation: Propagation,
    seed: int,
) -> Generator[None, None, Trajectory]:
    """Do what `rollout` does a little at a time, between yields, and return what it returns."""
    imagination = Imagination(dynamics, observation, actions, particles, propagation, seed)
    starts, candidates, horizon, _ = actions.shape
    particles, size = imagination.particles, observation.shape[-1]
    found = observation.new_empty(starts * candidates, particles, horizon, size)

    def imagine(chunks: range) -> None:
        part = found[imagination.sequences(chunks)]
        for step, state in enumerate(imagination.steps(chunks)):
            part[:, :, step] = state

    yield from imagination.turns(imagine)
    return Trajectory(found.view(starts, candidates, particles, horizon, size))


def finish(work: Generator[None, None, Result]) -> Result:
    """Run work that is done in turns to its end, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Result = end.value
            return result


class Imagination:
    """The action sequences that are to be imagined, S·P of them, in chunks.

    Chunks follow from the shapes alone, and the draws of each from the seed and its index.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        observation: Tensor,
        actions: Tensor,
        particles: int,
        propagation: Propagation,
        seed: int,
    ):
        """Take the arguments of `rollout`.

        Raises:
            InvalidInput: as there.
        """
        _check_shapes(observation, actions, particles)
        self.particles = 1 if propagation == "expectation" else particles
        self._dynamics = dynamics
        self._observation = observation
        self._actions = actions.flatten(0, 1)
        self._candidates = actions.shape[1]
        self._propagation = propagation
        self._seed = check_seed(seed)
        self._bounds = _chunk_bounds(len(self._actions), self.particles)
        self._grouped = dynamics if isinstance(dynamics, GroupedDynamics) else None
        self._is_local = self._grouped is not None and dynamics.device.type == "cpu"

    def sequences(self, chunks: range) -> slice:
        """Return which of the S·P sequences some neighbouring chunks are."""
        return slice(self._bounds[chunks.start], self._bounds[chunks.stop])

    def start_of(self, sequences: slice) -> Tensor:
        """Return which of the start states each of some sequences begins at, [C]."""
        index = torch.arange(sequences.start, sequences.stop) // self._candidates
        return index.to(self._observation.device)

    def turns(self, imagine: Callable[[range], None]) -> Iterator[None]:
        """Call ``imagine`` with all chunks, some at a time, and yield after each turn.

        Where the dynamics bear it, chunks run side by side, each on one of torch's threads:
        products of this size are faster so than split over threads, which fork and join at each.
        """
        count = len(self._bounds) - 1
        threads = torch.get_num_threads() if self._is_local else 1
        most = _CHUNKS_IN_ONE_CALL
        if self._is_local:
            most = max(1, min(_CHUNKS_ON_ONE_THREAD, count // threads))
        calls = [range(i, min(i + most, count)) for i in range(0, count, most)]
        if threads == 1 or len(calls) == 1:
            for call in calls:
                imagine(call)
                yield
            return
        try:
            with ThreadPoolExecutor(threads, "rollout", torch.set_num_threads, (1,)) as pool:
                for i in range(0, len(calls), threads):
                    list(pool.map(torch.inference_mode()(imagine), calls[i : i + threads]))
                    yield
        finally:
            # A thread's own number is also what later threads begin with.
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def steps(self, chunks: range) -> Iterator[Tensor]:
        """Imagine some neighbouring chunks, and yield the particles [C, N, O] after each step."""
        sequences, n, size = self.sequences(chunks), self.particles, self._observation.shape[1]
        actions = self._actions[sequences].unbind(1)
        state = self._observation[self.start_of(sequences)].repeat_interleave(n, 0)
        if self._propagation == "expectation":
            for action in actions:
                state = self._dynamics.step(state, action, None, None)
                yield state.unsqueeze(1)
            return
        draws = [self._draws(chunk) for chunk in chunks]
        is_anew = self._propagation != "tsinf"
        dealt = hands(draws, len(actions), self._dynamics.members, size, is_anew, state.device)
        # At first, rows that a member has of one sequence are all alike, and stand side by side.
        alike = 1 if n % self._dynamics.members else n // self._dynamics.members
        for action, hand in zip(actions, dealt, strict=True):
            state = self._step(state, action, hand, alike)
            alike = 1
            if self._propagation == "moment_matching":
                parts = torch.split(state.view(-1, n, size), [chunk.sequences for chunk in draws])
                drawn = [chunk.redraw(part) for chunk, part in zip(draws, parts, strict=True)]
                state = torch.cat(drawn).flatten(0, 1)
            yield state.view(-1, n, size)

    def _step(self, state: Tensor, action: Tensor, hand: Hand, alike: int) -> Tensor:
        """Return the rows [R, O] that follow, for an action of each sequence [C, A].

        So many rows that stand side by side are alike.
        """
        members, width, size = hand.noise.shape
        if self._grouped is not None:
            row, sequence = hand.row[::alike], hand.sequence[::alike]
            following = self._grouped.step_groups(
                state.index_select(0, row).view(members, -1, size),
                action.index_select(0, sequence).view(members, -1, action.shape[1]),
                hand.noise.view(members, -1, alike, size),
            )
        else:
            following = self._dynamics.step(
                state.index_select(0, hand.row),
                action.index_select(0, hand.sequence),
                torch.arange(members, device=state.device).repeat_interleave(width),
                hand.noise.flatten(0, 1),
            )
        return following.view(-1, size).index_select(0, hand.place)

    def _draws(self, chunk: int) -> ChunkDraws:
        first, last = self._bounds[chunk : chunk + 2]
        generator = derived_generator(self._seed, ROLLOUT, chunk)
        return ChunkDraws(last - first, self.particles, generator)


def _chunk_bounds(sequences: int, particles: int) -> list[int]:
    """Return where chunks begin, and the end: all halved until they have few enough rows."""
    most = max(1, _CHUNK_ROWS // particles)
    chunks = 1
    while sequences > chunks * most:
        chunks = min(2 * chunks, sequences)
    return [sequences * i // chunks for i in range(chunks + 1)]


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
