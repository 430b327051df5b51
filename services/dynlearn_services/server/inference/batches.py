"""Batches: predictions that wait for the same model version, computed as one and split again.

On a CPU the rows of a batch are shared with other threads, each with its products to itself:
torch's own way forks and joins at each layer, and wakes sleeping threads each time.

Shapes: N rows.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

from dynlearn.compute import torch_threads
from dynlearn_services.server.inference.work import Outcome, Prediction, Tensors
from dynlearn_services.server.metrics import Metrics
from dynlearn_services.server.models.inputs import Inputs
from dynlearn_services.server.models.loaded_model import LoadedModel

# Fewer are done before another thread is awake.
_ROWS_OF_A_THREAD = 64


@dataclass(frozen=True)
class _Computed:
    """A batch's outputs, in the parts that threads computed, each with the bounds of its rows."""

    model: LoadedModel
    bounds: Sequence[int]
    parts: Sequence[Tensors]

    def rows(self, start: int, end: int) -> Tensors:
        """Return the outputs of some rows; those that one thread computed are not copied."""
        rows_of, join = self.model.outputs.rows_of, self.model.outputs.join
        pieces = []
        for (first, last), part in zip(pairwise(self.bounds), self.parts, strict=True):
            if start < last and first < end:
                rows = slice(max(start, first) - first, min(end, last) - first)
                pieces.append({name: rows_of(name, part[name], rows) for name in part})
        if len(pieces) == 1:
            return pieces[0]
        return {name: join(name, [piece[name] for piece in pieces]) for name in pieces[0]}


class Batches:
    """What computes batches: the thread that asks, and a pool of others beside it."""

    def __init__(self, threads: int, metrics: Metrics):
        """Start the pool.

        Args:
            threads: how many compute, with the one that asks.
            metrics: where to count.
        """
        self._threads = threads
        self._metrics = metrics
        self._open = ExitStack()
        self._pool = self._open.enter_context(torch_threads(max(1, threads - 1), "inference-rows"))

    def close(self) -> None:
        """End the pool."""
        self._open.close()

    def compute(self, batch: Sequence[Prediction]) -> Iterable[Outcome]:
        """Compute predictions that fit together as one, and split the outputs again."""
        outcomes: list[Outcome] = []
        wanted = [work for work in batch if work.is_awaited]
        if not wanted:
            return outcomes
        for work in wanted:
            work.started = time.monotonic()
        model, outputs = wanted[0].model, wanted[0].outputs
        try:
            inputs = Inputs.merge([work.inputs for work in wanted])
            computed = self._share(model, inputs, outputs)
        except BaseException as error:
            if len(wanted) == 1:
                return [(wanted[0], None, error)]
            # One caller's fault is not the others'.
            return chain.from_iterable(self.compute([work]) for work in wanted)
        self._metrics.observe_batch(model.name, model.version, inputs.rows, wanted[0].started)
        ends = list(accumulate(work.inputs.rows for work in wanted))
        for work, start, end in zip(wanted, [0, *ends], ends, strict=False):
            outcomes.append((work, computed.rows(start, end), None))
        return outcomes

    def _share(self, model: LoadedModel, inputs: Inputs, outputs: Sequence[str]) -> _Computed:
        parts = min(self._threads, inputs.rows // _ROWS_OF_A_THREAD)
        if parts < 2 or model.model.device.type != "cpu":
            return _Computed(model, [0, inputs.rows], [model.compute(inputs, outputs)])
        bounds = [inputs.rows * part // parts for part in range(parts + 1)]
        own, *others = (inputs.rows_of(slice(*pair)) for pair in pairwise(bounds))
        waiting = [self._pool.submit(model.compute, part, outputs) for part in others]
        first = model.compute(own, outputs)
        return _Computed(model, bounds, [first, *(part.result() for part in waiting)])


def take_fitting(batch: list[Prediction], waiting: deque[Prediction], most_rows: int) -> int:
    """Move what can be computed with a batch from a queue to it, and return the rows there are."""
    rows = sum(work.inputs.rows for work in batch)
    kept = []
    while waiting and rows < most_rows:
        work = waiting.popleft()
        if _fit(batch[0], work) and rows + work.inputs.rows <= most_rows:
            batch.append(work)
            rows += work.inputs.rows
        else:
            kept.append(work)
    waiting.extendleft(reversed(kept))
    return rows


def _fit(first: Prediction, second: Prediction) -> bool:
    """Whether two predictions can be computed as one."""
    return (
        second.model is first.model
        and second.outputs == first.outputs
        and second.inputs.merges_with(first.inputs)
    )
