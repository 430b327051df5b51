"""What is random in imagined trajectories: members, noise, redrawn particles.

Each kind of draw of a chunk has a stream of its own, in which every step takes a fixed number: so a
step's draws are a function of seed, chunk and step, however many steps or chunks are drawn at once.

Shapes: T steps, C sequences, N particles, R = C·N rows, E members, W rows of each member,
O observation, D predicted columns, B rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Self

import torch
from torch import Tensor

from dynlearn.seeds import ROLLOUT, derived_generator, seeded

# How many numbers are drawn at once, but that it is at least those of a step.
_MAX_DRAWS = 2**20
# Likewise where particles are redrawn, but at least those of a particle; another number here gives
# other draws.
_MAX_REDRAWN = 2**20
# Torch makes so many normal numbers at a time, those left over in another way.
_NORMAL_BLOCK = 16

_SEQUENCE, _PARTICLE, _FIRST, _NOISE, _REDRAW = range(5)


class ChunkDraws:
    """The random draws of one chunk of sequences, all on the CPU."""

    def __init__(self, sequences: int, particles: int, seed: int, chunk: int):
        """Begin at step zero of a chunk."""
        self.sequences = sequences
        self.particles = particles
        self._seed, self._chunk = seed, chunk
        self._streams: dict[int, torch.Generator] = {}

    def width(self, members: int) -> int:
        """Return W, how many rows of each member it takes to have one for each particle."""
        return -(-self.sequences * self.particles // members)

    def noise(self, steps: int, members: int, size: int) -> Tensor:
        """Return the standard normal draws of the next steps, [T, E, W, size]."""
        shape = members, self.width(members), size
        count = members * shape[1] * size
        whole = -(-count // _NORMAL_BLOCK) * _NORMAL_BLOCK
        drawn = torch.randn(steps, whole, generator=self._stream(_NOISE))
        return drawn[:, :count].view(steps, *shape)

    def cards(self, steps: int, members: int) -> tuple[Tensor, Tensor]:
        """Return the member that answers each row, and its place among that member's, each [T, R].

        Members are dealt in turn, to the sequences in random order and to the particles of each in
        random order. So each row is as likely to get one member as another, and neither in a
        sequence nor in the chunk has one member more than one row more than another.
        """
        count, n = self.sequences, self.particles
        sequence = torch.rand(steps, count, 1, generator=self._stream(_SEQUENCE)).argsort(1)
        particle = torch.rand(steps, count, n, generator=self._stream(_PARTICLE)).argsort(2)
        turn = (sequence * n + particle).flatten(1)
        first = torch.randint(members, (steps, 1), generator=self._stream(_FIRST))
        return (turn + first) % members, turn // members

    def redraw(self, state: Tensor) -> Tensor:
        """Draw all particles [C, N, O] anew from the Gaussian of their mean and covariance.

        With D the deviations from the mean and ε standard normal, ``Dᵀε / √N`` has exactly the
        covariance ``DᵀD / N``, whatever its rank.
        """
        count, n, _ = state.shape
        mean = state.mean(1, keepdim=True)
        deviation = (state - mean) / n**0.5
        most = max(1, _MAX_REDRAWN // (count * n))
        drawn = []
        for first in range(0, n, most):
            noise = torch.randn(count, min(most, n - first), n, generator=self._stream(_REDRAW)).to(
                state.device, state.dtype
            )
            drawn.append(torch.baddbmm(mean, noise, deviation))
        return torch.cat(drawn, 1)

    def _stream(self, kind: int) -> torch.Generator:
        if kind not in self._streams:
            self._streams[kind] = derived_generator(self._seed, ROLLOUT, self._chunk, kind)
        return self._streams[kind]


class Deal(NamedTuple):
    """The rows of some chunks sorted by member, each member with equally many.

    Attributes:
        row: which row stands at each place, [T, E·W]; row zero again where one is over.
        place: where each row stands, [T, R].
    """

    row: Tensor
    place: Tensor

    @classmethod
    def of(cls, draws: Sequence[ChunkDraws], steps: int, members: int) -> Self:
        """Deal the rows of chunks, one chunk after another."""
        widths = [chunk.width(members) for chunk in draws]
        before = accumulate(widths[:-1], initial=0)
        places = []
        for chunk, first in zip(draws, before, strict=True):
            member, turn = chunk.cards(steps, members)
            places.append(member.mul_(sum(widths)).add_(turn).add_(first))
        place = torch.cat(places, 1)
        row = place.new_zeros(steps, members * sum(widths))
        return cls(row.scatter_(1, place, torch.arange(place.shape[1]).expand_as(place)), place)


class Hand(NamedTuple):
    """What one step of some chunks takes.

    Attributes:
        row: which row stands at each place, [E·W].
        sequence: whose row that is, [E·W].
        place: where each row stands, [R].
        noise: standard normal draws for each place, [E, W, O].
    """

    row: Tensor
    sequence: Tensor
    place: Tensor
    noise: Tensor


def hands(
    draws: Sequence[ChunkDraws],
    horizon: int,
    members: int,
    size: int,
    is_anew: bool,
    device: torch.device,
) -> Iterator[Hand]:
    """Yield what each step takes; members are dealt anew at each of them, or once for all."""
    rows = sum(chunk.width(members) for chunk in draws) * members
    most = max(1, _MAX_DRAWS // (rows * size))
    deal: Deal | None = None
    for first in range(0, horizon, most):
        steps = min(most, horizon - first)
        if deal is None or is_anew:
            deal = Deal.of(draws, steps if is_anew else 1, members)
            row, place = deal.row.to(device), deal.place.to(device)
            sequence = row // draws[0].particles
        noise = torch.cat([chunk.noise(steps, members, size) for chunk in draws], 2).to(device)
        for step in range(steps):
            dealt = step if is_anew else 0
            yield Hand(row[dealt], sequence[dealt], place[dealt], noise[step])


def draw_members(rows: int, among: Sequence[int], columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the draws of one-step samples: a member for each row [B], and noise [B, D].

    Args:
        rows: B.
        among: the members that may answer, as likely as one another.
        columns: D.
        seed: of both.

    Raises:
        InvalidInput: the seed is not between 0 and 2⁶³ - 1.
    """
    generator = seeded(seed)
    place = torch.randint(len(among), (rows,), generator=generator)
    return torch.tensor(list(among))[place], torch.randn(rows, columns, generator=generator)
