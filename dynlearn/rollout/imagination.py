"""Imagined trajectories: many action sequences from many states, with particles.

The sequences are cut into chunks, each with random numbers of its own, so that neither the order
nor how many are imagined at once changes the answer, and memory is bounded by what is imagined at
once.

Shapes: S start states, P candidates, N particles, H horizon, O observation, A action, E members,
C sequences and R = C·N rows that are imagined at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import torch
from torch import Tensor

from dynlearn.config.choices import Propagation
from dynlearn.errors import InvalidInput
from dynlearn.numbers import check_integer
from dynlearn.rollout.draws import ChunkDraws, Hand, hands
from dynlearn.rollout.dynamics import Dynamics, GroupedDynamics, RowGroups, step_mean
from dynlearn.rollout.schedule import in_turns
from dynlearn.seeds import check_seed

# Few enough for every thread to have some, even where there are many.
_CHUNK_ROWS = 1024


class Imagination:
    """The action sequences that are to be imagined, S·P of them, in chunks.

    Chunks follow from the shapes alone, and the draws of each from the seed and its index.
    """

    def __init__(
        self,
        dynamics: Dynamics | GroupedDynamics,
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
        _check_shapes(observation, actions)
        particles = check_integer("particles", particles, 1)
        if propagation not in get_args(Propagation):
            raise InvalidInput(
                f"propagation: expected one of {', '.join(get_args(Propagation))}, got "
                f"{propagation!r}"
            )
        self.particles = 1 if propagation == "expectation" else particles
        self._is_grouped = isinstance(dynamics, GroupedDynamics)
        self._dynamics = dynamics if isinstance(dynamics, GroupedDynamics) else RowGroups(dynamics)
        self._observation = observation
        self._actions = actions.flatten(0, 1)
        self._candidates = actions.shape[1]
        self._propagation = propagation
        self._seed = check_seed(seed)
        self._bounds = _chunk_bounds(len(self._actions), self.particles)

    def sequences(self, chunks: range) -> slice:
        """Return which of the S·P sequences some neighbouring chunks are."""
        return slice(self._bounds[chunks.start], self._bounds[chunks.stop])

    def start_of(self, sequences: slice) -> Tensor:
        """Return which of the start states each of some sequences begins at, [C]."""
        index = torch.arange(sequences.start, sequences.stop) // self._candidates
        return index.to(self._observation.device)

    def turns(
        self, imagine: Callable[[range], Iterator[None]], pause: Callable[[], bool]
    ) -> Iterator[None]:
        """Imagine all chunks, some at a time, and yield whenever ``pause`` says so."""
        on_threads = self._is_grouped and self._dynamics.device.type == "cpu"
        return in_turns(imagine, len(self._bounds) - 1, on_threads, pause)

    @torch.no_grad()
    def steps(self, chunks: range) -> Iterator[Tensor]:
        """Imagine some neighbouring chunks, and yield the particles [C, N, O] after each step."""
        sequences, n, size = self.sequences(chunks), self.particles, self._observation.shape[1]
        # A step at a time: views of a million at once keep Python's other threads from running.
        taken = self._actions[sequences]
        horizon = taken.shape[1]
        actions = (taken[:, step] for step in range(horizon))
        state = self._observation[self.start_of(sequences)].repeat_interleave(n, 0)
        if self._propagation == "expectation":
            for action in actions:
                state = step_mean(self._dynamics, state, action)
                yield state.unsqueeze(1)
            return
        draws = [self._draws(chunk) for chunk in chunks]
        is_anew = self._propagation != "tsinf"
        dealt = hands(draws, horizon, self._dynamics.members, size, is_anew, state.device)
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
        members, _, size = hand.noise.shape
        row, sequence = hand.row[::alike], hand.sequence[::alike]
        following = self._dynamics.step_groups(
            state.index_select(0, row).view(members, -1, size),
            action.index_select(0, sequence).view(members, -1, action.shape[1]),
            hand.noise.view(members, -1, alike, size),
        )
        return following.view(-1, size).index_select(0, hand.place)

    def _draws(self, chunk: int) -> ChunkDraws:
        first, last = self._bounds[chunk : chunk + 2]
        return ChunkDraws(last - first, self.particles, self._seed, chunk)


def _chunk_bounds(sequences: int, particles: int) -> list[int]:
    """Return where chunks begin, and the end: all halved until they have few enough rows."""
    most = max(1, _CHUNK_ROWS // particles)
    chunks = 1
    while sequences > chunks * most:
        chunks = min(2 * chunks, sequences)
    return [sequences * i // chunks for i in range(chunks + 1)]


def _check_shapes(observation: Tensor, actions: Tensor) -> None:
    if observation.dim() != 2:
        raise InvalidInput(
            f"observation: expected [starts, columns], got {list(observation.shape)}"
        )
    if actions.dim() != 4 or len(actions) != len(observation) or 0 in actions.shape:
        raise InvalidInput(
            f"actions: expected [{len(observation)} starts, candidates, horizon, columns], "
            f"none of them zero, got {list(actions.shape)}"
        )
