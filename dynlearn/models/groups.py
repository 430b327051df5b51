"""Rows sorted by which member answers them, so that all members answer in one product.

Shapes: E members, B rows, W rows of each member.
"""

import torch
from torch import Tensor


class MemberGroups:
    """The places of rows in [E, W]; a member with fewer rows than others has zeros beside them."""

    def __init__(self, member: Tensor, members: int):
        """Take which of so many members answers each row [B]."""
        counts = torch.bincount(member, minlength=members)
        order = torch.argsort(member, stable=True)
        first = torch.cumsum(counts, 0) - counts
        slot = torch.empty_like(member)
        slot[order] = torch.arange(len(member), device=member.device) - first[member[order]]
        self._place = member, slot
        self._shape = members, int(counts.max())

    def gather(self, rows: Tensor) -> Tensor:
        """Return rows [B, ...] as [E, W, ...]."""
        groups = rows.new_zeros(*self._shape, *rows.shape[1:])
        groups[self._place] = rows
        return groups

    def scatter(self, groups: Tensor) -> Tensor:
        """Return the rows [B, ...] of [E, W, ...] in their own order."""
        return groups[self._place]
