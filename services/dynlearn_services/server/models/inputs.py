"""Inputs: what a prediction is made from.

Shapes: N rows, O observation, A action, G context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from dynlearn.protocol.tensors import Array


@dataclass(frozen=True)
class Inputs:
    """What a prediction is made from, checked.

    Attributes:
        observation: [N, O].
        action: [N, A], or integers [N] where actions are discrete.
        member: which member alone answers each row, integers [N].
        members: which members make up the mixture; all where it is None.
        context: what a learned reward needs, the goal, [N, G].
    """

    observation: Array
    action: Array
    member: Array | None = None
    members: tuple[int, ...] | None = None
    context: Array | None = None

    @property
    def rows(self) -> int:
        """N."""
        return len(self.observation)

    def merges_with(self, other: Self) -> bool:
        """Whether both can be computed as one."""
        return (
            (self.member is None) == (other.member is None)
            and self.members == other.members
            and (self.context is None) == (other.context is None)
        )

    @classmethod
    def merge(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts, one part after the other."""
        first = parts[0]
        if len(parts) == 1:
            return first
        return replace(
            first,
            observation=np.concatenate([part.observation for part in parts]),
            action=np.concatenate([part.action for part in parts]),
            member=_join([part.member for part in parts]),
            context=_join([part.context for part in parts]),
        )

    def rows_of(self, rows: slice) -> Self:
        """Return some rows."""
        return replace(
            self,
            observation=self.observation[rows],
            action=self.action[rows],
            member=None if self.member is None else self.member[rows],
            context=None if self.context is None else self.context[rows],
        )


def _join(parts: Sequence[Array | None]) -> Array | None:
    """Return arrays one after the other, which all or none of the parts have."""
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if arrays else None
