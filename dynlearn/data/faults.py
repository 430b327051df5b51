"""Faults of environments: what a dataset records of episodes that were not played as they should.

They lie beside the episodes they befell, in the schema of a shard's file, so that an interrupted
collection keeps both or neither; the header of a finished dataset has all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dynlearn.errors import CorruptData, describe_fault

MOST_FAULTS = 100_000
"""Of one dataset: its header stays readable."""


class EpisodeFault(BaseModel):
    """What befell one episode.

    Attributes:
        episode: its index.
        seed: with which it was played.
        step: how many steps went well before.
        what: came instead of the next.
        treatment: whether the episode ends there, or another seed was played in its place.
        replaced_by: that seed, where it was skipped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    episode: int = Field(ge=0)
    seed: int = Field(ge=0)
    step: int = Field(ge=0)
    what: str
    treatment: Literal["cut", "skipped"]
    replaced_by: int | None = None


class Faults(BaseModel):
    """All faults of a dataset.

    Attributes:
        cut: how many episodes end before their time.
        skipped: how many seeds were given up, each replaced by another.
        each: of them, by episode.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cut: int = 0
    skipped: int = 0
    each: tuple[EpisodeFault, ...] = ()

    @classmethod
    def of(cls, faults: Iterable[EpisodeFault]) -> Self:
        """Count faults, which come in the order in which each episode met them."""
        each = tuple(sorted(faults, key=lambda fault: fault.episode))
        cut = sum(fault.treatment == "cut" for fault in each)
        return cls(cut=cut, skipped=len(each) - cut, each=each)

    def __str__(self) -> str:
        """Return how many there are, in words."""
        counts = ((self.cut, "cut"), (self.skipped, "skipped"))
        return ", ".join(f"{count} {name}" for count, name in counts if count)


_LIST = TypeAdapter(tuple[EpisodeFault, ...])


def encode_faults(faults: Iterable[EpisodeFault]) -> bytes:
    """Return faults as JSON."""
    return _LIST.dump_json(tuple(faults))


def decode_faults(content: bytes) -> tuple[EpisodeFault, ...]:
    """Return the faults of `encode_faults`.

    Raises:
        CorruptData: it is something else.
    """
    try:
        return _LIST.validate_json(content)
    except ValidationError as error:
        raise CorruptData(f"expected faults, got {describe_fault(error, 'others')}") from error
