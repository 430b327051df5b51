"""SideBySide: groups of members that train at the same time, on a few threads."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller
from typing import Self

import torch

from dynlearn.member_group import Group, GroupMeasures

# How many updates a thread makes of one group before it takes the next that waits.
_UPDATES_AT_A_TIME = 4


class SideBySide:
    """Threads that share groups among them; each product of a group is on one thread.

    Products of this size are faster so than split over threads, which fork and join at every
    layer. Entered, it takes torch's own threads down to one, but where there is a single group.
    """

    def __init__(self, groups: Sequence[Group], threads: int):
        self._groups = groups
        self._threads = min(threads, len(groups))
        self._torch_threads = torch.get_num_threads()

    def __enter__(self) -> Self:
        count = 1 if len(self._groups) > 1 else self._torch_threads
        torch.set_num_threads(count)
        # A thread's own number, which a new one would take only from some operations on.
        self._pool = ThreadPoolExecutor(self._threads, "members", torch.set_num_threads, (count,))
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()
        torch.set_num_threads(self._torch_threads)

    def advance(self, updates: int) -> None:
        """Make so many updates of every group."""
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
        return list(self._pool.map(methodcaller("validate"), self._groups))
