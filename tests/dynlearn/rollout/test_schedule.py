import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from dynlearn.rollout.schedule import finish, in_turns

STEPS = 3


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    yield torch.set_num_threads
    torch.set_num_threads(1)


class Recorder:
    """Imagines by remembering which steps of which chunks were taken."""

    def __init__(self) -> None:
        self.steps: list[tuple[range, int]] = []

    def __call__(self, chunks: range) -> Iterator[None]:
        for step in range(STEPS):
            self.steps.append((chunks, step))
            yield

    @property
    def calls(self) -> list[range]:
        """Which chunks went together, in order."""
        return sorted({chunks for chunks, _ in self.steps}, key=lambda call: call.start)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_without_a_pause_it_runs_to_the_end(threads: Callable[[int], None], count: int) -> None:
    threads(count)
    recorder = Recorder()
    assert sum(1 for _ in in_turns(recorder, 8, on_threads=True)) <= 1
    assert len(recorder.steps) == 4 * STEPS
    for call in recorder.calls:
        assert [step for chunks, step in recorder.steps if chunks == call] == [0, 1, 2]


@pytest.mark.parametrize(("count", "on_threads"), [(1, True), (2, True), (3, True), (2, False)])
def test_a_pause_comes_after_a_step_of_every_thread(
    threads: Callable[[int], None], count: int, on_threads: bool
) -> None:
    threads(count)
    recorder = Recorder()
    at_once = min(count, 4) if on_threads else 1
    before = 0
    for _ in in_turns(recorder, 8, on_threads, pause=lambda: True):
        assert len(recorder.steps) - before <= at_once
        before = len(recorder.steps)
    calls = 4 if on_threads else 1
    assert sorted(recorder.steps, key=lambda taken: (taken[0].start, taken[1])) == [
        (call, step) for call in recorder.calls for step in range(STEPS)
    ]
    assert len(recorder.calls) == calls


def test_what_is_given_up_is_closed(threads: Callable[[int], None]) -> None:
    threads(2)
    recorder = Recorder()
    turns = in_turns(recorder, 8, on_threads=True, pause=lambda: True)
    next(turns)
    turns.close()
    assert len(recorder.steps) == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("chunks", [1, 2, 3, 4, 7, 8])
def test_which_chunks_go_together_depends_neither_on_threads_nor_on_pauses(
    threads: Callable[[int], None], chunks: int
) -> None:
    found = []
    for count in (1, 2, 3, 8):
        for pause in (False, True):
            threads(count)
            recorder = Recorder()
            list(in_turns(recorder, chunks, True, lambda pause=pause: pause))  # type: ignore[misc]
            found.append(recorder.calls)
    assert all(calls == found[0] for calls in found)
    assert [chunk for call in found[0] for chunk in call] == list(range(chunks))
    assert max(map(len, found[0])) == (2 if chunks >= 4 else 1)


def test_where_a_call_costs_much_there_are_few() -> None:
    recorder = Recorder()
    list(in_turns(recorder, 70, on_threads=False))
    assert recorder.calls == [range(32), range(32, 64), range(64, 70)]


def test_calls_run_side_by_side_with_torch_to_themselves(threads: Callable[[int], None]) -> None:
    both = threading.Barrier(2, timeout=30)
    found: list[int] = []

    def imagine(chunks: range) -> Iterator[None]:
        both.wait()
        found.append(torch.get_num_threads())
        yield

    threads(2)
    list(in_turns(imagine, 2, on_threads=True))
    assert torch.get_num_threads() == 2
    assert found == [1, 1]


def test_what_fails_on_a_thread_is_raised(threads: Callable[[int], None]) -> None:
    def imagine(chunks: range) -> Iterator[None]:
        yield
        raise ArithmeticError(f"chunk {chunks.start}")

    threads(2)
    with pytest.raises(ArithmeticError, match="chunk"):
        list(in_turns(imagine, 8, on_threads=True))


def test_what_work_returns_is_its_result() -> None:
    def work():  # type: ignore[no-untyped-def]
        yield
        return "done"

    assert finish(work()) == "done"
