"""Inference: the two threads that run models, and the queues before them.

Predictions that wait for the same model version are computed in one batch and split again. Other
work, such as rollouts, has a thread of its own, on which it takes turns: so that a prediction
beside it, which is soon done, waits for none of it.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial

import torch

from dynlearn.errors import Unavailable
from dynlearn_services.server.inference.batches import Batches
from dynlearn_services.server.inference.faults import as_told
from dynlearn_services.server.inference.queues import Queues
from dynlearn_services.server.inference.work import (
    Call,
    Outcome,
    Pause,
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

# For how long one of several tasks goes on before the next does.
_TURN_SECONDS = 0.005

logger = logging.getLogger(__name__)


class Inference:
    """Threads and their queues. Submissions come from event loops; `call` from any thread."""

    def __init__(
        self,
        threads: int,
        max_pending: int,
        batch_rows: int,
        batch_wait: float,
        metrics: Metrics,
    ):
        """Start the threads.

        Args:
            threads: torch's, for what each of these runs.
            max_pending: how many submissions may wait; more are refused.
            batch_rows: predictions are merged up to so many rows; with 1 none are.
            batch_wait: seconds to wait for more rows when there are fewer.
            metrics: where to count.
        """
        self._threads = threads
        self._metrics = metrics
        self._queues = Queues(max_pending, batch_rows, batch_wait)
        self._batches = Batches(threads, metrics)
        self._threads_of_models = [
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
            for name, work in (("predictions", self._predict_all), ("inference", self._run_others))
        ]
        for thread in self._threads_of_models:
            thread.start()

    @property
    def pending(self) -> int:
        """How many submissions wait."""
        return len(self._queues)

    def require_alive(self) -> None:
        """Check that there are still threads to run what comes.

        Raises:
            Unavailable: one has died.
        """
        if not all(thread.is_alive() for thread in self._threads_of_models):
            raise Unavailable("a thread of the server's models has died; start the server anew")

    async def predict(
        self, model: LoadedModel, inputs: Inputs, outputs: Sequence[str], deadline: float | None
    ) -> Tensors:
        """Return a model's outputs, computed in a batch with what else waits for the model.

        Raises:
            Unavailable: too much is waiting already, or memory is short.
            DeadlineExceeded: the deadline passed before its turn came.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Tensors] = loop.create_future()
        self._queues.add(Prediction(model, future, loop, inputs=inputs, outputs=outputs))
        return await within(deadline, future)

    async def run(
        self,
        model: LoadedModel,
        begin: Callable[[Pause], Generator[None, None, Result]],
        deadline: float | None,
    ) -> Result:
        """Run a generator to its end, with pauses for other work, and return what it returns.

        Args:
            model: that it is about.
            begin: gives the generator; it is to yield soon after what it is given says so.
            deadline: a time of `time.monotonic` after which nobody waits for it.

        Raises:
            Unavailable: too much is waiting already, or memory is short.
            DeadlineExceeded: the deadline passed before its end.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        task = Task(model, future, loop)
        task.pieces = begin(partial(self._is_to_pause, task))
        self._queues.add(task)
        return await within(deadline, future)

    def call(self, function: Callable[[], None]) -> None:
        """Run a function between other work, from any other thread, and wait for it."""
        done = threading.Event()
        faults: list[BaseException] = []

        def called() -> None:
            try:
                function()
            except BaseException as error:
                faults.append(error)
            finally:
                done.set()

        self._queues.add(Call(called))
        while not done.wait(timeout=1):
            self.require_alive()
        if faults:
            raise faults[0]

    def close(self) -> None:
        """Finish what waits and end the threads."""
        self._queues.close()
        for thread in self._threads_of_models:
            thread.join()
        self._batches.close()

    def _run(self, work: Callable[[], None]) -> None:
        # Each thread has a number of its own.
        torch.set_num_threads(1)
        try:
            work()
        except BaseException:
            logger.exception("a thread of models has died")
            self._finish([(work, None, _gone()) for work in self._queues.drain()])
            raise

    def _predict_all(self) -> None:
        while batch := self._queues.take_predictions():
            try:
                self._finish(self._batches.compute(batch))
            except Exception as error:
                self._finish([(work, None, error) for work in batch])
            except BaseException:
                self._finish([(work, None, _gone()) for work in batch])
                raise

    def _run_others(self) -> None:
        while work := self._queues.take_other():
            if isinstance(work, Task):
                self._finish(self._advance(work))
            else:
                work.function()

    def _is_to_pause(self, task: Task) -> bool:
        device = task.model.model.device
        if device.type == "cuda":
            # What has only been launched is not done, and would be in the way of what comes next.
            torch.cuda.current_stream(device).synchronize()
        return self._queues.wants_turn(task)

    def _advance(self, task: Task) -> Iterable[Outcome]:
        torch.set_num_threads(self._threads)
        try:
            if not task.is_awaited:
                task.pieces.close()
                return []
            now = time.monotonic()
            task.started = task.started or now
            task.turn_ends = now + _TURN_SECONDS
            next(task.pieces)
        except StopIteration as end:
            self._metrics.observe_task(task.model.name, task.started)
            return [(task, end.value, None)]
        except BaseException as error:
            return [(task, None, error)]
        finally:
            torch.set_num_threads(1)
        self._queues.put_back(task)
        return []

    def _finish(self, outcomes: Iterable[Outcome]) -> None:
        """Hand outcomes to those who wait; one call wakes an event loop for all of its own."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Outcome]] = {}
        for work, result, error in outcomes:
            if work.started:
                self._metrics.observe_queue(work.model.name, work.started - work.submitted)
            told = None if error is None else as_told(error)
            by_loop.setdefault(work.loop, []).append((work, result, told))
        for loop, own in by_loop.items():
            try:
                loop.call_soon_threadsafe(deliver, own)
            except RuntimeError:
                # The loop has been closed, and with it everyone who waited.
                continue


def _gone() -> Unavailable:
    return Unavailable("a thread of the server's models has died; ask another server")
