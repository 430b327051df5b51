import asyncio
import threading
import time
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest
import torch

from dynlearn.errors import DeadlineExceeded, Unavailable
from dynlearn.protocol.names import OUTPUTS
from dynlearn_services.server.inference.thread import Inference
from dynlearn_services.server.models.inputs import Inputs
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.outputs import Outputs

MEAN, MEMBERS = OUTPUTS["mean"], OUTPUTS["member_means"]


@pytest.fixture
def loaded(make_model):
    return LoadedModel("arm", "1", make_model())


class Gate:
    """Work that keeps the thread busy until it is opened."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()
        self.pieces = 0

    def run(self, more=0):
        self.entered.set()
        assert self.opened.wait(30)
        for _ in range(more):
            self.pieces += 1
            yield
        return "through"
        yield


class GatedModel(LoadedModel):
    """A model whose predictions keep their thread busy until it is opened."""

    def __init__(self, model):
        super().__init__("gate", "1", model)
        self.entered, self.opened = threading.Event(), threading.Event()

    def compute(self, inputs, outputs):
        self.entered.set()
        assert self.opened.wait(30)
        return {MEAN: np.zeros((1, 5), np.float32)}


async def behind_a_gate(inference, loaded, *others):
    """Start others while predictions are kept, then open the gate and return what they give."""
    gate = GatedModel(loaded.model)
    row = Inputs(np.zeros((1, 5), np.float32), np.zeros((1, 2), np.float32))
    first = asyncio.ensure_future(inference.predict(gate, row, (MEAN,), None))
    await asyncio.to_thread(gate.entered.wait)
    tasks = [asyncio.ensure_future(other) for other in others]
    await asyncio.sleep(0.05)
    gate.opened.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await first
    return results


def test_what_waits_is_merged_and_split_exactly(inference, loaded, draw_rows, monkeypatch):
    sizes, batches = (3, 1, 7, 2), []
    compute = LoadedModel.compute

    def counting(self, inputs, outputs):
        batches.append(inputs.rows)
        return compute(self, inputs, outputs)

    monkeypatch.setattr(LoadedModel, "compute", counting)
    parts = [Inputs(*draw_rows(size, seed)) for seed, size in enumerate(sizes)]
    results = asyncio.run(
        behind_a_gate(
            inference,
            loaded,
            *(inference.predict(loaded, part, (MEAN, MEMBERS), None) for part in parts),
        )
    )
    assert batches == [13]
    for part, result in zip(parts, results, strict=True):
        prediction = loaded.model.predict(part.observation, part.action)
        np.testing.assert_allclose(result[MEAN], prediction.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result[MEMBERS], prediction.member_means, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "joined"), [((200, 200), 0), ((100, 300), 1), ((400,), 1), ((90, 60, 150, 100), 1)]
)
def test_what_is_merged_and_shared_by_threads_is_split_exactly(
    metrics, loaded, draw_rows, monkeypatch, sizes, joined
):
    """Of 400 rows each of two threads computes half; only what lies across is copied."""
    joins = []
    join = Outputs.join

    def counting(self, output, parts):
        joins.append(output)
        return join(self, output, parts)

    monkeypatch.setattr(Outputs, "join", counting)
    parts = [Inputs(*draw_rows(size, seed)) for seed, size in enumerate(sizes)]
    inference = Inference(threads=2, max_pending=8, batch_rows=400, batch_wait=0.0, metrics=metrics)
    with closing(inference):
        results = asyncio.run(
            behind_a_gate(
                inference,
                loaded,
                *(inference.predict(loaded, part, (MEAN, MEMBERS), None) for part in parts),
            )
        )
    assert joins == [MEAN, MEMBERS] * joined
    for part, result in zip(parts, results, strict=True):
        prediction = loaded.model.predict(part.observation, part.action)
        np.testing.assert_allclose(result[MEAN], prediction.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result[MEMBERS], prediction.member_means, rtol=1e-5, atol=1e-6)


def test_what_differs_is_not_merged(inference, loaded, make_model, draw_rows, monkeypatch):
    batches = []
    compute = LoadedModel.compute

    def counting(self, inputs, outputs):
        batches.append((self.version, inputs.rows, tuple(outputs), inputs.members))
        return compute(self, inputs, outputs)

    monkeypatch.setattr(LoadedModel, "compute", counting)
    other = LoadedModel("arm", "2", make_model(seed=1))
    observation, action = draw_rows(2)
    plain = Inputs(observation, action)
    alone = Inputs(observation, action, member=np.array([0, 1]))
    subset = Inputs(observation, action, members=(0, 2))
    large = Inputs(*draw_rows(99))
    calls = [
        inference.predict(loaded, plain, (MEAN,), None),
        inference.predict(other, plain, (MEAN,), None),
        inference.predict(loaded, plain, (MEMBERS,), None),
        inference.predict(loaded, alone, (MEAN,), None),
        inference.predict(loaded, subset, (MEAN,), None),
        inference.predict(loaded, large, (MEAN,), None),
        inference.predict(loaded, plain, (MEAN,), None),
    ]
    results = asyncio.run(behind_a_gate(inference, loaded, *calls))
    assert batches == [
        ("1", 4, (MEAN,), None),
        ("2", 2, (MEAN,), None),
        ("1", 2, (MEMBERS,), None),
        ("1", 2, (MEAN,), None),
        ("1", 2, (MEAN,), (0, 2)),
        ("1", 99, (MEAN,), None),
    ]
    members = loaded.model.predict(observation, action).member_means
    np.testing.assert_allclose(results[4][MEAN], members[[0, 2]].mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results[3][MEAN], members[[0, 1], [0, 1]], rtol=1e-5, atol=1e-6)


def test_waiting_for_more_rows(loaded, metrics, draw_rows):
    inference = Inference(threads=1, max_pending=8, batch_rows=4, batch_wait=5.0, metrics=metrics)

    async def ask():
        part = Inputs(*draw_rows(2))
        first = asyncio.ensure_future(inference.predict(loaded, part, (MEAN,), None))
        await asyncio.sleep(0.1)
        assert not first.done()
        # Four rows are a batch: nothing waits any longer.
        await asyncio.wait_for(inference.predict(loaded, part, (MEAN,), None), 3)
        await asyncio.wait_for(first, 3)

    try:
        asyncio.run(ask())
    finally:
        inference.close()


def test_one_callers_fault_is_not_the_others(inference, loaded, draw_rows, monkeypatch):
    compute = LoadedModel.compute

    def failing(self, inputs, outputs):
        if 666 in inputs.observation:
            raise RuntimeError("of this row")
        return compute(self, inputs, outputs)

    monkeypatch.setattr(LoadedModel, "compute", failing)
    observation, action = draw_rows(2)
    bad = Inputs(np.full_like(observation, 666), action)
    calls = [
        inference.predict(loaded, part, (MEAN,), None)
        for part in (Inputs(observation, action), bad)
    ]
    good, fault = asyncio.run(behind_a_gate(inference, loaded, *calls))
    assert good[MEAN].shape == (2, 5)
    assert isinstance(fault, RuntimeError)


def test_the_queue_has_an_end(inference, loaded, draw_rows):
    part = Inputs(*draw_rows(1))
    calls = [inference.predict(loaded, part, (MEAN,), None) for _ in range(9)]
    results = asyncio.run(behind_a_gate(inference, loaded, *calls))
    assert [type(result) for result in results] == [dict] * 8 + [Unavailable]
    assert "at most 8 requests to wait" in str(results[-1])
    assert inference.pending == 0


def test_what_is_too_late_or_not_waited_for_is_not_computed(
    inference, loaded, draw_rows, monkeypatch
):
    rows = []
    compute = LoadedModel.compute

    def counting(self, inputs, outputs):
        rows.append(inputs.rows)
        return compute(self, inputs, outputs)

    monkeypatch.setattr(LoadedModel, "compute", counting)

    async def hang_up():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await inference.predict(loaded, Inputs(*draw_rows(2)), (MEAN,), None)

    late = inference.predict(loaded, Inputs(*draw_rows(3)), (MEAN,), time.monotonic() + 0.01)
    good = inference.predict(loaded, Inputs(*draw_rows(4)), (MEAN,), time.monotonic() + 30)
    _, error, result = asyncio.run(behind_a_gate(inference, loaded, hang_up(), late, good))
    assert isinstance(error, DeadlineExceeded)
    assert result[MEAN].shape == (4, 5)
    assert rows == [4]


def test_predictions_wait_for_no_other_work(inference, loaded, draw_rows):
    """Not even for a step of it that takes long."""
    gate = Gate()

    async def ask():
        long = asyncio.ensure_future(inference.run(loaded, lambda _: gate.run(), None))
        await asyncio.to_thread(gate.entered.wait)
        for _ in range(3):
            await inference.predict(loaded, Inputs(*draw_rows(1)), (MEAN,), None)
        gate.opened.set()
        return await long

    assert asyncio.run(ask()) == "through"


def test_a_task_alone_is_never_interrupted(inference, loaded):
    def steps(pause):
        for _ in range(20):
            time.sleep(0.001)
            assert not pause()
        return "all"
        yield

    assert asyncio.run(inference.run(loaded, steps, None)) == "all"


def test_tasks_take_turns_of_some_milliseconds(inference, loaded):
    order = []

    def steps(name):
        def begin(pause):
            for _ in range(30):
                order.append(name)
                time.sleep(0.001)
                if pause():
                    yield

        return begin

    async def ask():
        await asyncio.gather(*(inference.run(loaded, steps(name), None) for name in "ab"))

    asyncio.run(ask())
    turns = [order[0], *(b for a, b in pairwise(order) if a != b)]
    assert len(turns) >= 4
    assert sorted(order) == ["a"] * 30 + ["b"] * 30


def test_a_step_is_all_that_is_done_for_nobody(inference, loaded):
    steps = []

    def endless(pause):
        while True:
            steps.append(time.monotonic())
            time.sleep(0.001)
            if pause():
                yield

    async def ask():
        with pytest.raises(DeadlineExceeded):
            await inference.run(loaded, endless, time.monotonic() + 0.05)

    asyncio.run(ask())
    time.sleep(0.1)
    count = len(steps)
    time.sleep(0.1)
    assert len(steps) == count


def test_an_error_in_merging_is_its_callers_alone(inference, loaded, draw_rows, monkeypatch):
    merge = Inputs.merge.__func__

    def fail(cls, parts):
        if len(parts) > 1:
            raise ArithmeticError("cannot be merged")
        return merge(cls, parts)

    monkeypatch.setattr(Inputs, "merge", classmethod(fail))
    asked = [inference.predict(loaded, Inputs(*draw_rows(rows)), (MEAN,), None) for rows in (1, 2)]
    found = asyncio.run(behind_a_gate(inference, loaded, *asked))
    assert [result[MEAN].shape for result in found] == [(1, 5), (2, 5)]
    inference.require_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_said_to_whoever_waits_or_comes(
    inference, loaded, draw_rows, monkeypatch
):
    def die(self, batch):
        raise SystemExit("beyond repair")

    monkeypatch.setattr("dynlearn_services.server.inference.batches.Batches.compute", die)
    asked = [inference.predict(loaded, Inputs(*draw_rows(rows)), (MEAN,), None) for rows in (1, 60)]

    async def ask():
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)

    assert all(isinstance(error, Unavailable) for error in asyncio.run(ask()))
    for _ in range(500):
        time.sleep(0.01)
        if not inference._threads_of_models[0].is_alive():
            break
    with pytest.raises(Unavailable, match="has died"):
        inference.require_alive()
    with pytest.raises(Unavailable):
        inference.call(lambda: None)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), Unavailable),
        (MemoryError(), Unavailable),
        (StopIteration(), RuntimeError),
        (SystemExit(1), RuntimeError),
        (ValueError("a fault"), ValueError),
    ],
)
def test_whatever_fails_is_told_and_ends_no_thread(
    inference, loaded, draw_rows, monkeypatch, fault, told
):
    def fail(*arguments):
        raise fault

    def begin(pause):
        fail()
        yield

    async def ask():
        with pytest.raises(told):
            await inference.run(loaded, begin, None)
        monkeypatch.setattr(LoadedModel, "compute", fail)
        with pytest.raises(told):
            await inference.predict(loaded, Inputs(*draw_rows(1)), (MEAN,), None)

    asyncio.run(ask())
    inference.require_alive()


def test_other_work_ends_when_nobody_waits(inference, loaded):
    closed = threading.Event()

    def endless():
        try:
            while True:
                time.sleep(0.001)
                yield
        finally:
            closed.set()

    async def ask():
        with pytest.raises(DeadlineExceeded):
            await inference.run(loaded, lambda _: endless(), time.monotonic() + 0.05)
        assert closed.wait(5)
        closed.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(inference.run(loaded, lambda _: endless(), None), 0.05)

    asyncio.run(ask())
    assert closed.wait(5)


def test_calls_run_on_the_thread_and_raise_to_the_caller(inference):
    names = []
    inference.call(lambda: names.append(threading.current_thread().name))
    assert names == ["inference"]
    with pytest.raises(ZeroDivisionError):
        inference.call(lambda: 1 / 0)
    assert inference.pending == 0


def test_closing_finishes_what_waits(metrics, loaded, draw_rows):
    inference = Inference(threads=1, max_pending=8, batch_rows=100, batch_wait=0.0, metrics=metrics)

    async def ask():
        gate = Gate()
        first = asyncio.ensure_future(inference.run(loaded, lambda _: gate.run(more=2), None))
        await asyncio.to_thread(gate.entered.wait)
        second = asyncio.ensure_future(
            inference.predict(loaded, Inputs(*draw_rows(1)), (MEAN,), None)
        )
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(asyncio.to_thread(inference.close))
        await asyncio.sleep(0.05)
        with pytest.raises(Unavailable):
            await inference.predict(loaded, Inputs(*draw_rows(1)), (MEAN,), None)
        gate.opened.set()
        assert await first == "through"
        assert torch.tensor((await second)[MEAN]).isfinite().all()
        await closing

    asyncio.run(ask())
    with pytest.raises(Unavailable):
        inference.call(lambda: None)
