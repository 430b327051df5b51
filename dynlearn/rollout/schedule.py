"""Chunks of imagined trajectories on threads, with pauses in which other work may go."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import torch

from dynlearn.compute import torch_threads

# Enough rows for Python's part in a step to be small, and few enough for a step to come to its end
# in good time for whatever else waits.
_CHUNKS_ON_ONE_THREAD = 2
# Fewer are not paired, so that there is work for some threads.
_CHUNKS_TO_PAIR = 4
# Where a call costs much whatever its size: on a GPU, or to a server.
_CHUNKS_IN_ONE_CALL = 32

Result = TypeVar("Result")


def _never() -> bool:
    return False


def in_turns(
    imagine: Callable[[range], Iterator[None]],
    chunks: int,
    on_threads: bool,
    pause: Callable[[], bool] = _never,
) -> Generator[None, None, None]:
    """Imagine all chunks, some at a time, and yield whenever ``pause`` says so.

    On threads, each call is on one of torch's own: products of this size are faster so than split
    over threads, which fork and join at each. Which chunks go together depends neither on how many
    threads there are nor on the pauses, because products of other shapes round otherwise.

    Args:
        imagine: gives what imagines some neighbouring chunks, a step at a time.
        chunks: how many there are.
        on_threads: whether calls may run side by side.
        pause: asked after every step, by every thread, whether other work is to go first.
    """
    calls = deque(_calls(chunks, on_threads))
    threads = torch.get_num_threads() if on_threads else 1
    if threads == 1 or len(calls) == 1:
        for call in calls:
            for _ in imagine(call):
                if pause():
                    yield
        return

    # A caller in inference mode has made what threads write to.
    is_inference = torch.is_inference_mode_enabled()

    def advance(going: Iterator[None] | None) -> Iterator[None] | None:
        """Imagine what is under way and then what is left; return what a pause leaves under way."""
        with torch.inference_mode(is_inference), torch.no_grad():
            while True:
                if going is not None:
                    for _ in going:
                        if pause():
                            return going
                try:
                    going = imagine(calls.popleft())
                except IndexError:
                    return None

    with torch_threads(threads, "rollout") as pool:
        under_way: list[Iterator[None] | None] = [None] * threads
        while calls or any(going is not None for going in under_way):
            under_way = list(pool.map(advance, under_way))
            yield


def _calls(chunks: int, on_threads: bool) -> list[range]:
    most = _CHUNKS_IN_ONE_CALL
    if on_threads:
        most = _CHUNKS_ON_ONE_THREAD if chunks >= _CHUNKS_TO_PAIR else 1
    return [range(first, min(first + most, chunks)) for first in range(0, chunks, most)]


def finish(work: Generator[None, None, Result]) -> Result:
    """Run work that is done in turns to its end, and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: Result = end.value
            return result
