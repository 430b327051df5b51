"""SideBySide: groups of members that train at the same time, on a few threads."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from operator import methodcaller
from typing import Self

import numpy as np

from dynlearn.compute import torch_threads
from dynlearn.training.group import Group, GroupMeasures

# How many updates a thread makes of one group before it takes the next that waits.
_UPDATES_AT_A_TIME = 4
# What a group takes at each update beside its members' products, as so many multiplications of a
# forward pass, and below how many of a member's all are faster in one group, whose products torch
# itself splits. Measured on two cores with AVX-512.
_GROUP_OVERHEAD = 24e6
_ONE_GROUP_BELOW = 2e6


class SideBySide:
    """Threads that share groups among them; each product of a group is on one thread.

    A single group needs none: it is updated where it is asked for, with all of torch's threads.
    """

    def __init__(self, groups: Sequence[Group], threads: int):
        self._groups = groups
        self._threads = min(threads, len(groups))
        self._stack = ExitStack()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if len(self._groups) > 1:
            self._pool = self._stack.enter_context(torch_threads(self._threads, "members"))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def advance(self, updates: int) -> None:
        """Make so many updates of every group."""
        if self._pool is None:
            self._groups[0].advance(updates)
            return
        if self._threads == len(self._groups):
            list(self._pool.map(methodcaller("advance", updates), self._groups))
            return
        waiting = deque((group, updates) for group in self._groups)

        def work() -> None:
            while waiting:
                try:
                    group, left = waiting.popleft()
                except IndexError:
                    return
                group.advance(min(left, _UPDATES_AT_A_TIME))
                if left > _UPDATES_AT_A_TIME:
                    waiting.append((group, left - _UPDATES_AT_A_TIME))

        for done in [self._pool.submit(work) for _ in range(self._threads)]:
            done.result()

    def validate(self) -> list[GroupMeasures]:
        """Measure every group on the validation data."""
        if self._pool is None:
            return [self._groups[0].validate()]
        return list(self._pool.map(methodcaller("validate"), self._groups))


def groups_for_threads(members: int, multiplications: float, threads: int) -> int:
    """Return how many groups train fastest on threads that take turns with them.

    Every group has work of its own beside its members'; against that stand threads without any,
    while others have many members.

    Args:
        members: E.
        multiplications: of a member in the forward pass of an update.
        threads: how many there are.
    """
    if multiplications < _ONE_GROUP_BELOW:
        return 1

    def time(groups: int) -> float:
        longest = _GROUP_OVERHEAD + -(-members // groups) * multiplications
        return max(longest, (groups * _GROUP_OVERHEAD + members * multiplications) / threads)

    return min(range(1, members + 1), key=time)


def even_parts(members: int, count: int) -> list[slice]:
    """Return consecutive slices of the members, as equal as can be and none empty."""
    bounds = np.linspace(0, members, min(count, members) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(bounds)]
