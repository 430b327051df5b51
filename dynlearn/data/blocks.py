"""BlockStore: a dataset of few long episodes, seen as one of many short ones.

A robot's log is often a single trajectory. Cut into blocks it can be learned from and judged on;
what is left out between neighbours keeps the last steps of one from foretelling the next's first.

Shapes: K episodes, N blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.store import EpisodeStore

_BLOCKS = 40
"""About how many, for the shares to be kept and each part to see all of a trajectory."""
_LEAST_STEPS = 5
_GAPS_SHARE = 20
"""A block's steps over those left out after it."""


class BlockStore(EpisodeStore):
    """The blocks of a finished dataset's episodes; its header counts them as episodes.

    Attributes:
        steps: of a block; the last ones of an episode may have up to half of them more or less.
        gap: steps left out between blocks.
    """

    def __init__(self, store: EpisodeStore):
        """Cut all episodes of a store."""
        header = store.header
        lengths = np.concatenate([table.lengths for table in store.tables()])
        self.steps = max(_LEAST_STEPS, -(-header.steps // _BLOCKS))
        self.gap = max(1, self.steps // _GAPS_SHARE)
        self._episodes = len(lengths)
        self._blocks = _cut(lengths, self.steps, self.gap)
        super().__init__(store.folder, header.model_copy(update={"episodes": len(self._blocks)}))

    def describe(self) -> str:
        """Return in one line how the episodes are cut."""
        return (
            f"{self._episodes} {'episode is' if self._episodes == 1 else 'episodes are'} split "
            f"within, into {len(self._blocks)} blocks of about {self.steps} steps with gaps of "
            f"{self.gap}"
        )

    def _chosen(self, indices: ArrayLike) -> Iterator[tuple[EpisodeTable, NDArray[np.int64]]]:
        blocks = self._blocks[self._checked_indices(indices)]
        shards, positions = np.divmod(blocks[:, 0], self.header.episodes_per_shard)
        for shard in np.unique(shards).tolist():
            table = self._read(shard)
            places = np.flatnonzero(shards == shard)
            parts = [
                table.stretch(int(positions[place]), *blocks[place, 1:].tolist())
                for place in places.tolist()
            ]
            yield EpisodeTable.concatenate(parts), np.arange(len(parts))


def _cut(lengths: NDArray[np.int64], steps: int, gap: int) -> NDArray[np.int64]:
    """Return the episode of each block, and the steps that it begins at and ends before, [N, 3]."""
    blocks = []
    for episode, length in enumerate(lengths.tolist()):
        firsts = list(range(0, length, steps + gap))
        if len(firsts) > 1 and length - firsts[-1] < steps / 2:
            # Too short for a block of its own.
            firsts.pop()
        ends = [first - gap for first in firsts[1:]] + [length]
        blocks += [(episode, first, end) for first, end in zip(firsts, ends, strict=True)]
    return np.array(blocks, dtype=np.int64)
