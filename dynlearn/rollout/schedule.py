"""Chunks of imagined trajectories on threads, in turns between which other work may go."""

from collections.abc import Callable, Generator
from typing import TypeVar

import torch

from dynlearn.compute import torch_threads

# Enough rows for Python's part in a step to be small, and few enough to come back in good time to
# whatever else waits for the thread.
_CHUNKS_ON_ONE_THREAD = 2
# Fewer are not paired, so that there is work for some threads.
_CHUNKS_TO_PAIR = 4
# Where a call costs much whatever its size: on a GPU, or to a server.
_CHUNKS_IN_ONE_CALL = 32

Result = TypeVar("Result")


def in_turns(
    imagine: Callable[[range], None], chunks: int, on_threads: bool
) -> Generator[None, None, None]:
    """Call ``imagine`` with all chunks, some at a time, and yield after each turn.

    On threads, each call is on one of torch's own: products of this size are faster so than split
    over threads, which fork and join at each. Which chunks go together does not depend on how many
    threads there are, because products of other shapes round otherwise.

    Args:
        imagine: what to do with some neighbouring chunks.
        chunks: how many there are.
        on_threads: whether calls may run side by side.
    """
    calls = _calls(chunks, on_threads)
    threads = torch.get_num_threads() if on_threads else 1
    if threads == 1 or len(calls) == 1:
        for call in calls:
            imagine(call)
            yield
        return
    with torch_threads(threads, "rollout") as pool:
        for i in range(0, len(calls), threads):
            list(pool.map(torch.inference_mode()(imagine), calls[i : i + threads]))
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
