"""Blocks of episodes as they are handed to workers, and what becomes of one whose worker is lost.

Which episode is to blame for the death of a process is found by playing them one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dynlearn.config import CollectConfig
from dynlearn.data.faults import EpisodeFault
from dynlearn.errors import Unavailable
from dynlearn_services.collection.faults import fault_of
from dynlearn_services.collection.recorder import Played
from dynlearn_services.collection.watch import Place

_DEATHS_OF_A_BLOCK = 3
"""After which it is played episode by episode."""
_DEATHS_OF_AN_EPISODE = 2
"""Of one that is played alone: once may be anybody's doing."""


class Loss(NamedTuple):
    """How a worker was lost.

    Attributes:
        reason: in a line.
        place: where it was, as far as that is known for sure.
        is_stuck: whether it was ended here, in a step that took too long.
    """

    reason: str
    place: Place | None
    is_stuck: bool = False


@dataclass
class Block:
    """Neighbouring episodes that go to the writer together.

    Attributes:
        position: among all blocks.
        indices: of the episodes.
        parts: of them, that have been played.
    """

    position: int
    indices: range
    parts: list[Played] = field(default_factory=list)

    def whole(self) -> Played | None:
        """Return all of them, once they are there."""
        if sum(len(part.table) for part in self.parts) < len(self.indices):
            return None
        return Played.join(self.parts)


@dataclass
class Task:
    """What a worker plays at a time: a block, or carefully one episode of it.

    Attributes:
        block: that it is of.
        indices: of the episodes.
        carefully: whether they are to be played one by one, each step announced.
        condemned: attempts at them that are not to be made again.
        deaths: how many processes have died over it.
    """

    block: Block
    indices: Sequence[int]
    carefully: bool = False
    condemned: dict[tuple[int, int], EpisodeFault] = field(default_factory=dict)
    deaths: int = 0

    def after(self, loss: Loss, config: CollectConfig) -> list[Task]:
        """Return what is to be played now that a worker was lost over it.

        Raises:
            CorruptData: an episode is to blame, and the collection is to stop there.
            Unavailable: nothing is to blame that is known.
        """
        self.deaths += 1
        place = loss.place
        is_exact = place is not None and place.episode in self.indices
        if is_exact and (
            loss.is_stuck or (self.carefully and self.deaths >= _DEATHS_OF_AN_EPISODE)
        ):
            assert place is not None
            assert place.episode is not None
            self._condemn(place.episode, place, loss, config)
            return [self]
        if self.carefully:
            if self.deaths < _DEATHS_OF_AN_EPISODE:
                return [self]
            raise Unavailable(
                f"expected workers that stay alive, got {self.deaths} that died before they began "
                f"episode {self.indices[0]}: {loss.reason}"
            )
        if loss.is_stuck or self.deaths >= _DEATHS_OF_A_BLOCK:
            return [
                Task(self.block, [index], True, _of_episode(self.condemned, index))
                for index in self.indices
            ]
        return [self]

    def _condemn(self, episode: int, place: Place, loss: Loss, config: CollectConfig) -> None:
        # The last good step is lost with the process: it cannot be cut there.
        fault = fault_of(
            config, episode, place.attempt, max(0, place.step), loss.reason, is_cut=False
        )
        self.condemned[episode, place.attempt] = fault
        self.deaths = 0


def _of_episode(
    condemned: dict[tuple[int, int], EpisodeFault], index: int
) -> dict[tuple[int, int], EpisodeFault]:
    return {place: fault for place, fault in condemned.items() if place[0] == index}
