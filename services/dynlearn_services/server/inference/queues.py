"""Queues: what waits for the threads that run models, and what of it is next."""

import threading
import time
from collections import deque
from typing import Any

from dynlearn.errors import Unavailable
from dynlearn_services.server.inference.batches import take_fitting
from dynlearn_services.server.inference.work import Call, Prediction, Task, Work


class Queues:
    """Predictions, and other work beside them; filled by any thread, each emptied by one."""

    def __init__(self, max_pending: int, batch_rows: int, batch_wait: float):
        """Take the limits of `Inference`."""
        self._max_pending = max_pending
        self._batch_rows = batch_rows
        self._batch_wait = batch_wait
        self._predictions: deque[Prediction] = deque()
        self._others: deque[Task | Call] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._others_changed = threading.Condition(self._lock)
        self._closed = False

    def __len__(self) -> int:
        """Return how much waits."""
        return len(self._predictions) + len(self._others)

    def add(self, work: Prediction | Task | Call) -> None:
        """Let something wait, behind what does already.

        Raises:
            Unavailable: too much waits, or nothing will be taken any more.
        """
        with self._lock:
            if self._closed:
                raise Unavailable("the server is closing; ask another one")
            # A call is the server's own.
            if not isinstance(work, Call) and len(self) >= self._max_pending:
                raise Unavailable(
                    f"expected at most {self._max_pending} requests to wait, got one more; "
                    "ask again in a moment, or start more replicas",
                )
            self._append(work)

    def put_back(self, task: Task) -> None:
        """Let a task wait for its next turn."""
        with self._lock:
            self._append(task)

    def take_predictions(self) -> list[Prediction]:
        """Wait for predictions and take those that fit together as one; none at the end."""
        with self._lock:
            while not self._predictions and not self._closed:
                self._changed.wait()
            return self._gather(self._predictions.popleft()) if self._predictions else []

    def take_other(self) -> Task | Call | None:
        """Wait for other work and take it; None at the end."""
        with self._lock:
            while not self._others and not self._closed:
                self._others_changed.wait()
            return self._others.popleft() if self._others else None

    def wants_turn(self, task: Task) -> bool:
        """Whether a task is to pause: its turn is over and others wait, or nobody waits for it.

        Asked after every step, so without the lock.
        """
        is_over = bool(self._others) and time.monotonic() > task.turn_ends
        return is_over or not task.is_awaited

    def close(self) -> None:
        """Take nothing more in; what waits can still be taken."""
        with self._lock:
            self._closed = True
            self._changed.notify()
            self._others_changed.notify()

    def drain(self) -> list[Work[Any]]:
        """Close, and return those whose callers wait in vain."""
        self.close()
        with self._lock:
            left = [*self._predictions, *(one for one in self._others if isinstance(one, Task))]
            self._predictions.clear()
            self._others.clear()
            return left

    def _append(self, work: Prediction | Task | Call) -> None:
        if isinstance(work, Prediction):
            self._predictions.append(work)
            self._changed.notify()
        else:
            self._others.append(work)
            self._others_changed.notify()

    def _gather(self, first: Prediction) -> list[Prediction]:
        """Take what can be computed with a prediction out of the queue, which is locked."""
        batch = [first]
        give_up = time.monotonic() + self._batch_wait
        while True:
            rows = take_fitting(batch, self._predictions, self._batch_rows)
            left = give_up - time.monotonic()
            if rows >= self._batch_rows or left <= 0 or self._closed:
                return batch
            self._changed.wait(left)
