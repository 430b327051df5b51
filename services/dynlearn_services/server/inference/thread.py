"""Inference: the one thread that runs a device's models, and the queue before it.

Predictions that wait for the same model version are computed in one batch and split again. Other
work runs a piece at a time, and what has come in the meantime goes between. On a CPU the rows of a
batch are shared with other threads, each with its products to itself: torch's own way forks and
joins at each layer, and wakes sleeping threads each time.

Shapes: N rows.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from typing import Any, Generic, TypeVar

import torch

from dynlearn.errors import DeadlineExceeded, Unavailable
from dynlearn_services.server.calls.checks import Inputs
from dynlearn_services.server.metrics import Metrics
from dynlearn_services.server.models.loaded_model import LoadedModel

Result = TypeVar("Result")
Tensors = dict[str, Any]

# Fewer are done before another thread is awake.
_ROWS_OF_A_THREAD = 64


@dataclass(eq=False)
class _Work(Generic[Result]):
    """Something that a caller on an event loop waits for."""

    model: LoadedModel
    future: "asyncio.Future[Result]"
    loop: asyncio.AbstractEventLoop
    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0

    @property
    def is_awaited(self) -> bool:
        return not self.future.done()


@dataclass(eq=False)
class _Prediction(_Work[Tensors]):
    inputs: Inputs = field(kw_only=True)
    outputs: Sequence[str] = field(kw_only=True)


@dataclass(eq=False)
class _Task(_Work[Any]):
    pieces: Generator[None, None, Any] = field(kw_only=True)


@dataclass(eq=False)
class _Call:
    function: Callable[[], None]


Outcome = tuple[_Work[Any], Any, BaseException | None]


@dataclass(frozen=True)
class _Computed:
    """A batch's outputs, in the parts that threads computed, each with the bounds of its rows."""

    model: LoadedModel
    bounds: Sequence[int]
    parts: Sequence[Tensors]

    def rows(self, start: int, end: int) -> Tensors:
        """Return the outputs of some rows; those that one thread computed are not copied."""
        pieces = []
        for (first, last), part in zip(pairwise(self.bounds), self.parts, strict=True):
            if start < last and first < end:
                rows = slice(max(start, first) - first, min(end, last) - first)
                pieces.append({name: self.model.rows_of(name, part[name], rows) for name in part})
        if len(pieces) == 1:
            return pieces[0]
        return {
            name: self.model.join_rows(name, [piece[name] for piece in pieces])
            for name in pieces[0]
        }


class Inference:
    """A thread and its queue. Submissions come from event loops; `call` from any thread."""

    def __init__(
        self,
        threads: int,
        max_pending: int,
        batch_rows: int,
        batch_wait: float,
        metrics: Metrics,
    ):
        """Start the thread.

        Args:
            threads: torch's, for what this one runs.
            max_pending: how many submissions may wait; more are refused.
            batch_rows: predictions are merged up to so many rows; with 1 none are.
            batch_wait: seconds to wait for more rows when there are fewer.
            metrics: where to count.
        """
        self._threads = threads
        self._max_pending = max_pending
        self._batch_rows = batch_rows
        self._batch_wait = batch_wait
        self._metrics = metrics
        self._waiting: deque[_Prediction | _Task | _Call] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._pool = ThreadPoolExecutor(
            max(1, threads - 1), "inference-rows", torch.set_num_threads, (1,)
        )
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """How many submissions wait."""
        return len(self._waiting)

    async def predict(
        self, model: LoadedModel, inputs: Inputs, outputs: Sequence[str], deadline: float | None
    ) -> Tensors:
        """Return a model's outputs, computed in a batch with what else waits for the model.

        Raises:
            Unavailable: too much is waiting already.
            DeadlineExceeded: the deadline passed before its turn came.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Tensors] = loop.create_future()
        self._submit(_Prediction(model, future, loop, inputs=inputs, outputs=outputs))
        return await _within(deadline, future)

    async def run(
        self,
        model: LoadedModel,
        pieces: Generator[None, None, Result],
        deadline: float | None,
    ) -> Result:
        """Run a generator to its end, piece by piece, and return what it returns.

        Raises:
            Unavailable: too much is waiting already.
            DeadlineExceeded: the deadline passed before its end.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._submit(_Task(model, future, loop, pieces=pieces))
        return await _within(deadline, future)

    def call(self, function: Callable[[], None]) -> None:
        """Run a function on the thread, from any other thread, and wait for it."""
        done = threading.Event()
        faults: list[BaseException] = []

        def called() -> None:
            try:
                function()
            except BaseException as error:
                faults.append(error)
            finally:
                done.set()

        with self._changed:
            if self._closed:
                raise Unavailable("the server is closing; ask another one")
            self._waiting.append(_Call(called))
            self._changed.notify()
        done.wait()
        if faults:
            raise faults[0]

    def close(self) -> None:
        """Finish what waits and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._pool.shutdown()

    def _submit(self, work: _Prediction | _Task) -> None:
        with self._changed:
            if self._closed or len(self._waiting) >= self._max_pending:
                raise Unavailable(
                    f"expected at most {self._max_pending} requests to wait, got one more; "
                    "ask again in a moment, or start more replicas",
                )
            self._waiting.append(work)
            self._changed.notify()

    def _run(self) -> None:
        # Each thread has a number of its own.
        torch.set_num_threads(1)
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                work = self._waiting.popleft()
                batch = self._gather(work) if isinstance(work, _Prediction) else []
            if isinstance(work, _Prediction):
                self._finish(self._predict(batch))
            elif isinstance(work, _Task):
                self._finish(self._advance(work))
            else:
                work.function()

    def _gather(self, first: _Prediction) -> list[_Prediction]:
        """Take what can be computed with a prediction out of the queue, which is locked."""
        batch, rows = [first], first.inputs.rows
        give_up = time.monotonic() + self._batch_wait
        while True:
            kept: deque[_Prediction | _Task | _Call] = deque()
            while self._waiting and rows < self._batch_rows:
                work = self._waiting.popleft()
                if (
                    isinstance(work, _Prediction)
                    and _fit(first, work)
                    and rows + work.inputs.rows <= self._batch_rows
                ):
                    batch.append(work)
                    rows += work.inputs.rows
                else:
                    kept.append(work)
            kept.extend(self._waiting)
            self._waiting = kept
            left = give_up - time.monotonic()
            if rows >= self._batch_rows or left <= 0 or self._closed:
                return batch
            self._changed.wait(left)

    def _predict(self, batch: Sequence[_Prediction]) -> Iterable[Outcome]:
        outcomes: list[Outcome] = []
        wanted = [work for work in batch if work.is_awaited]
        if not wanted:
            return outcomes
        for work in wanted:
            work.started = time.monotonic()
        model, outputs = wanted[0].model, wanted[0].outputs
        inputs = Inputs.merge([work.inputs for work in wanted])
        try:
            computed = self._compute(model, inputs, outputs)
        except Exception as error:
            if len(wanted) == 1:
                return [(wanted[0], None, error)]
            # One caller's fault is not the others'.
            return chain.from_iterable(self._predict([work]) for work in wanted)
        self._metrics.observe_batch(model.name, model.version, inputs.rows, wanted[0].started)
        ends = list(accumulate(work.inputs.rows for work in wanted))
        for work, start, end in zip(wanted, [0, *ends], ends, strict=False):
            outcomes.append((work, computed.rows(start, end), None))
        return outcomes

    def _compute(self, model: LoadedModel, inputs: Inputs, outputs: Sequence[str]) -> _Computed:
        parts = min(self._threads, inputs.rows // _ROWS_OF_A_THREAD)
        if parts < 2 or model.model.device.type != "cpu":
            return _Computed(model, [0, inputs.rows], [model.compute(inputs, outputs)])
        bounds = [inputs.rows * part // parts for part in range(parts + 1)]
        own, *others = (inputs.rows_of(slice(*pair)) for pair in pairwise(bounds))
        waiting = [self._pool.submit(model.compute, part, outputs) for part in others]
        first = model.compute(own, outputs)
        return _Computed(model, bounds, [first, *(part.result() for part in waiting)])

    def _advance(self, task: _Task) -> Iterable[Outcome]:
        torch.set_num_threads(self._threads)
        try:
            if not task.is_awaited:
                task.pieces.close()
                return []
            task.started = task.started or time.monotonic()
            next(task.pieces)
        except StopIteration as end:
            self._metrics.observe_task(task.model.name, task.started)
            return [(task, end.value, None)]
        except Exception as error:
            return [(task, None, error)]
        finally:
            torch.set_num_threads(1)
        with self._changed:
            self._waiting.append(task)
        return []

    def _finish(self, outcomes: Iterable[Outcome]) -> None:
        """Hand outcomes to those who wait; one call wakes an event loop for all of its own."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
        for outcome in outcomes:
            work = outcome[0]
            if work.started:
                self._metrics.observe_queue(work.model.name, work.started - work.submitted)
            by_loop.setdefault(work.loop, []).append(outcome)
        for loop, own in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, own)
            except RuntimeError:
                # The loop has been closed, and with it everyone who waited.
                continue


async def _within(deadline: float | None, future: "asyncio.Future[Result]") -> Result:
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


def _fit(first: _Prediction, second: _Prediction) -> bool:
    """Whether two predictions can be computed as one."""
    return (
        second.model is first.model
        and second.outputs == first.outputs
        and second.inputs.merges_with(first.inputs)
    )


def _deliver(outcomes: Iterable[Outcome]) -> None:
    for work, result, error in outcomes:
        if work.future.done():
            continue
        if error is None:
            work.future.set_result(result)
        else:
            work.future.set_exception(error)
