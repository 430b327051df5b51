import threading
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from dynlearn.training.group import GroupMeasures
from dynlearn.training.threads import SideBySide, groups_for_threads


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


class _Group:
    """Counts updates and remembers which thread made them, with how many threads of torch's."""

    def __init__(self, barrier: threading.Barrier | None = None):
        self.updates: list[int] = []
        self.seen: set[tuple[int, int]] = set()
        self._barrier = barrier
        self._busy = threading.Lock()

    def advance(self, updates: int) -> None:
        assert self._busy.acquire(blocking=False), "two threads at one group"
        if self._barrier and not self.updates:
            self._barrier.wait()
        self.updates.append(updates)
        self.seen.add((threading.get_ident(), torch.get_num_threads()))
        self._busy.release()

    def validate(self) -> GroupMeasures:
        return GroupMeasures(*torch.full((4, 1), float(sum(self.updates))))

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: Mapping[str, Tensor], update: int) -> None: ...


class _Failing(_Group):
    def advance(self, updates: int) -> None:
        raise ArithmeticError("of this group")


def test_as_many_groups_as_threads_run_at_the_same_time() -> None:
    barrier = threading.Barrier(2, timeout=30)
    groups = [_Group(barrier), _Group(barrier)]
    with SideBySide(groups, 2) as crew:
        crew.advance(10)
    assert [group.updates for group in groups] == [[10], [10]]
    idents, counts = zip(*(seen for group in groups for seen in group.seen), strict=True)
    assert len(set(idents)) == 2
    assert set(counts) == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("updates", [1, 4, 7, 64])
def test_more_groups_than_threads_take_turns(updates: int) -> None:
    groups = [_Group() for _ in range(5)]
    with SideBySide(groups, 2) as crew:
        crew.advance(updates)
        crew.advance(updates)
    assert [sum(group.updates) for group in groups] == [2 * updates] * 5
    assert max(max(group.updates) for group in groups) <= 4
    assert len({ident for group in groups for ident, _ in group.seen}) <= 2


def test_one_group_has_all_of_torchs_threads() -> None:
    group = _Group()
    with SideBySide([group], 8) as crew:
        crew.advance(100)
    assert group.updates == [100]
    assert {count for _, count in group.seen} == {2}


def test_measures_come_in_the_groups_order() -> None:
    groups = [_Group() for _ in range(3)]
    for updates, group in enumerate(groups):
        group.updates.append(updates)
    with SideBySide(groups, 2) as crew:
        assert [float(measures.nll[0]) for measures in crew.validate()] == [0, 1, 2]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fault_in_a_group_comes_out_and_leaves_no_trace(threads: int) -> None:
    with (
        pytest.raises(ArithmeticError, match="of this group"),
        SideBySide([_Failing(), _Group()], threads) as crew,
    ):
        crew.advance(8)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("members", "multiplications", "threads", "expected"),
    [
        # 5 × (4 × 200) on a minibatch of 256, which two threads train in 2 + 2 + 1.
        (5, 35e6, 1, 1), (5, 35e6, 2, 3), (5, 35e6, 4, 5), (5, 35e6, 16, 5),
        (4, 35e6, 2, 2), (6, 35e6, 2, 2), (10, 35e6, 2, 2), (1, 35e6, 2, 1),
        # 5 × (3 × 128), and 5 × (2 × 32).
        (5, 8.9e6, 2, 2), (5, 0.3e6, 2, 1),
    ],
)  # fmt: skip
def test_groups_keep_the_threads_busy(
    members: int, multiplications: float, threads: int, expected: int
) -> None:
    assert groups_for_threads(members, multiplications, threads) == expected
