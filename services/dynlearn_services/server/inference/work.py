"""Work for the thread that runs models, and how those who wait for it get it."""

import asyncio
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dynlearn.errors import DeadlineExceeded
from dynlearn_services.server.models.inputs import Inputs
from dynlearn_services.server.models.loaded_model import LoadedModel

Result = TypeVar("Result")
Tensors = dict[str, Any]
Pause = Callable[[], bool]
"""Says whether other work is to go first, or nobody waits any more."""


@dataclass(eq=False)
class Work(Generic[Result]):
    """Something that a caller on an event loop waits for."""

    model: LoadedModel
    future: "asyncio.Future[Result]"
    loop: asyncio.AbstractEventLoop
    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0

    @property
    def is_awaited(self) -> bool:
        """Whether the caller still waits."""
        return not self.future.done()


@dataclass(eq=False)
class Prediction(Work[Tensors]):
    """Rows to predict, alone or in a batch with others."""

    inputs: Inputs = field(kw_only=True)
    outputs: Sequence[str] = field(kw_only=True)


@dataclass(eq=False)
class Task(Work[Any]):
    """Other work, a piece at a time.

    Attributes:
        pieces: what does it.
        turn_ends: a time of `time.monotonic` after which other tasks go on.
    """

    pieces: Generator[None, None, Any] = field(init=False)
    turn_ends: float = 0.0


@dataclass(eq=False)
class Call:
    """A function to run, whose caller waits on another thread."""

    function: Callable[[], None]


Outcome = tuple[Work[Any], Any, BaseException | None]


async def within(deadline: float | None, future: "asyncio.Future[Result]") -> Result:
    """Wait for something until a time of `time.monotonic`; after it nobody does."""
    if deadline is None:
        return await future
    began = time.monotonic()
    try:
        async with asyncio.timeout(deadline - began):
            return await future
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"timeout: expected an answer by then, got none in {time.monotonic() - began:.3f} s; "
            "ask for less, or with a longer timeout"
        ) from error


def deliver(outcomes: Iterable[Outcome]) -> None:
    """Hand outcomes to those who still wait, on their event loop."""
    for work, result, error in outcomes:
        if work.future.done():
            continue
        if error is None:
            work.future.set_result(result)
        else:
            work.future.set_exception(error)
