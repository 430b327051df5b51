import threading

import pytest
import torch

from dynlearn.rollout.schedule import finish, in_turns


def _record(chunks: int, on_threads: bool, threads: int) -> tuple[list[range], int]:
    """Return which chunks went together, in order, and how many turns it took."""
    called: list[range] = []
    torch.set_num_threads(threads)
    try:
        turns = sum(1 for _ in in_turns(called.append, chunks, on_threads))
    finally:
        torch.set_num_threads(1)
    return sorted(called, key=lambda call: call.start), turns


@pytest.mark.parametrize(
    ("chunks", "threads", "turns"), [(8, 1, 4), (8, 2, 2), (8, 9, 1), (3, 2, 2), (2, 2, 1)]
)
def test_a_turn_is_a_call_on_every_thread(chunks: int, threads: int, turns: int) -> None:
    assert _record(chunks, True, threads)[1] == turns


@pytest.mark.parametrize("chunks", [1, 2, 3, 4, 7, 8])
def test_which_chunks_go_together_does_not_depend_on_threads(chunks: int) -> None:
    calls, _ = _record(chunks, True, 1)
    assert [chunk for call in calls for chunk in call] == list(range(chunks))
    assert max(map(len, calls)) == (2 if chunks >= 4 else 1)
    assert all(_record(chunks, True, threads)[0] == calls for threads in (2, 3, 8))


def test_where_a_call_costs_much_there_are_few() -> None:
    assert _record(70, False, 2) == ([range(32), range(32, 64), range(64, 70)], 3)


def test_calls_of_a_turn_run_side_by_side_with_torch_to_themselves() -> None:
    both = threading.Barrier(2, timeout=30)
    threads: list[int] = []

    def imagine(chunks: range) -> None:
        both.wait()
        threads.append(torch.get_num_threads())

    torch.set_num_threads(2)
    try:
        list(in_turns(imagine, 2, on_threads=True))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert threads == [1, 1]


def test_what_work_returns_is_its_result() -> None:
    def work():  # type: ignore[no-untyped-def]
        yield
        return "done"

    assert finish(work()) == "done"
