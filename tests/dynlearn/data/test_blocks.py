from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlearn.data.blocks import BlockStore, _cut
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.header import DatasetHeader
from dynlearn.data.store import EpisodeStore
from dynlearn.data.writer import EpisodeWriter
from dynlearn.spaces import BoxSpace, ObservationSpace


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(1, 50), st.integers(1, 9))
def test_blocks_lie_in_their_episodes_with_gaps_between(
    lengths: list[int], steps: int, gap: int
) -> None:
    blocks = _cut(np.array(lengths), steps, gap)
    for episode, length in enumerate(lengths):
        own = blocks[blocks[:, 0] == episode]
        assert (own[0, 1], own[-1, 2]) == (0, length)
        assert (own[1:, 1] - own[:-1, 2] == gap).all()
        sizes = own[:, 2] - own[:, 1]
        assert (sizes[:-1] == steps).all()
        if len(own) > 1:
            assert steps / 2 <= sizes[-1] <= 1.5 * steps + gap


@pytest.fixture
def store(tmp_path: Path, make_table: Callable[..., EpisodeTable]) -> EpisodeStore:
    """Three episodes of which one is short, in two files."""
    header = DatasetHeader(
        environment="elsewhere/Walk-v0",
        versions={},
        observation_space=ObservationSpace(observation=BoxSpace(low=(0, 0), high=(9, 9))),
        action_space=BoxSpace(low=(0,), high=(9,)),
        policy="random",
        config={},
        planned=3,
        episodes_per_shard=2,
    )
    table = make_table([200, 3, 197])
    with EpisodeWriter.create(str(tmp_path / "d"), header) as writer:
        writer.append(table.select([0, 1]))
        writer.append(table.select([2]))
        writer.finish()
    return EpisodeStore.open(str(tmp_path / "d"))


def test_blocks_are_read_as_episodes_are(store: EpisodeStore) -> None:
    blocks = BlockStore(store)
    # 400 steps: ten a block, one left out between them; 18, 1 and 18 of them.
    assert (blocks.steps, blocks.gap, blocks.header.episodes) == (10, 1, 37)
    table = blocks.table([0, 1, 18, 19, 36])
    assert table.indices.tolist() == [0, 0, 1, 2, 2]
    assert table.lengths.tolist() == [10, 10, 3, 10, 10]
    # What is 1000 k + t in episode k at step t.
    firsts = np.cumsum(table.lengths + 1) - table.lengths - 1
    assert table.observations[firsts, 0].tolist() == [0, 11, 1000, 2000, 2187]
    actions = table.actions[:, 0]
    np.testing.assert_array_equal(actions[:20], [*range(10), *range(11, 21)])
    table.check()
    pieces = list(blocks.pieces([0, 1, 18, 19, 36], 12))
    joined = EpisodeTable.concatenate(pieces)
    np.testing.assert_array_equal(joined.observations, table.observations)
    assert blocks.describe() == (
        "3 episodes are split within, into 37 blocks of about 10 steps with gaps of 1"
    )


def test_the_dataset_itself_stays_as_it_is(store: EpisodeStore) -> None:
    blocks = BlockStore(store)
    assert store.header.episodes == 3
    assert blocks.header.checksum == store.header.checksum
    assert len(blocks.table()) == 3
