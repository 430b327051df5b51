"""Inference: the one thread that runs a device's models, and the queue before it.

Predictions that wait for the same model version are computed in one batch and split again. Other
work runs a piece at a time, and what has come in the meantime goes between.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence

import torch

from dynlearn.errors import Unavailable
from dynlearn_services.server.inference.batches import Batches, take_fitting
from dynlearn_services.server.inference.work import (
    Call,
    Outcome,
    Prediction,
    Result,
    Task,
    Tensors,
    deliver,
    within,
)
from dynlearn_services.server.metrics import Metrics
from dynlearn_services.server.models.inputs import Inputs
from dynlearn_services.server.models.loaded_model import LoadedModel


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
        self._waiting: deque[Prediction | Task | Call] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._batches = Batches(threads, metrics)
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
        self._submit(Prediction(model, future, loop, inputs=inputs, outputs=outputs))
        return await within(deadline, future)

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
        self._submit(Task(model, future, loop, pieces=pieces))
        return await within(deadline, future)

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
            self._waiting.append(Call(called))
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
        self._batches.close()

    def _submit(self, work: Prediction | Task) -> None:
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
                batch = self._gather(work) if isinstance(work, Prediction) else []
            if isinstance(work, Prediction):
                self._finish(self._batches.compute(batch))
            elif isinstance(work, Task):
                self._finish(self._advance(work))
            else:
                work.function()

    def _gather(self, first: Prediction) -> list[Prediction]:
        """Take what can be computed with a prediction out of the queue, which is locked."""
        batch = [first]
        give_up = time.monotonic() + self._batch_wait
        while True:
            rows = take_fitting(batch, self._waiting, self._batch_rows)
            left = give_up - time.monotonic()
            if rows >= self._batch_rows or left <= 0 or self._closed:
                return batch
            self._changed.wait(left)

    def _advance(self, task: Task) -> Iterable[Outcome]:
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
                loop.call_soon_threadsafe(deliver, own)
            except RuntimeError:
                # The loop has been closed, and with it everyone who waited.
                continue
