import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynlearn.errors import NumericalFailure
from dynlearn.training.early_stopping import EarlyStopping, choose_elites

measures = st.one_of(
    st.integers(-3, 3).map(float), st.just(math.nan), st.just(math.inf), st.floats(-1, 1)
)


def _weights(step: int) -> dict[str, torch.Tensor]:
    """Weights that tell the step and the member, in two shapes."""
    member = torch.arange(3.0)
    return {"weight": (member + 10 * step).view(3, 1, 1), "buffer": -(member + 10 * step)}


def test_each_member_keeps_its_own_best_and_stops_for_itself() -> None:
    stopping = EarlyStopping(2, _weights(0))
    for step, measure in enumerate([[3.0, 3, 3], [2, 4, 4], [1, 2, 5], [0, 3, 0]], start=1):
        stopping.observe(torch.tensor(measure), _weights(step))
    # Member 2 had stopped before its measure of 0.
    assert stopping.best["weight"].flatten().tolist() == [40, 31, 12]
    assert stopping.best["buffer"].tolist() == [-40, -31, -12]
    assert stopping.best_measure.tolist() == [0, 2, 3]
    assert stopping.stopped.tolist() == [False, False, True]
    assert not stopping.all_stopped


def test_best_weights_are_copies() -> None:
    weights = _weights(1)
    stopping = EarlyStopping(2, weights)
    stopping.observe(torch.zeros(3), weights)
    for tensor in weights.values():
        tensor.zero_()
    assert stopping.best["buffer"].tolist() == [-10, -11, -12]


@given(
    patience=st.integers(1, 3),
    rows=st.lists(st.tuples(measures, measures, measures), max_size=12),
    split=st.integers(0, 12),
)
def test_observing_is_a_plain_loop_over_members_even_when_cut_in_two(
    patience: int, rows: list[tuple[float, float, float]], split: int
) -> None:
    stopping = EarlyStopping(patience, _weights(0))
    for step, row in enumerate(rows, start=1):
        stopping.observe(torch.tensor(row), _weights(step))
        if step == split:
            cut = EarlyStopping(patience, _weights(99))
            cut.load(stopping.best, stopping.state())
            stopping = cut
    stopped = []
    for member in range(3):
        best, best_step, since = math.inf, 0, 0
        for step, row in enumerate(rows, start=1):
            if since >= patience:
                break
            measure = float(torch.tensor(row[member]))
            if not math.isfinite(measure):
                since = patience
            elif measure < best:
                best, best_step, since = measure, step, 0
            else:
                since += 1
        stopped.append(since >= patience)
        assert float(stopping.best_measure[member]) == best
        assert float(stopping.best["weight"][member]) == member + 10 * best_step
        assert float(stopping.best["buffer"][member]) == -(member + 10 * best_step)
    assert stopping.stopped.tolist() == stopped
    assert stopping.all_stopped == all(stopped)


def test_who_was_never_good_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    measure = torch.tensor([3.0, math.inf, 1.0, 2.0])
    assert choose_elites(measure, None) == [0, 2, 3]
    assert "members [1] diverged before their first good validation" in caplog.text
    assert choose_elites(measure, 2) == [2, 3]
    assert choose_elites(measure, 4) == [2, 3, 0]
    caplog.clear()
    assert choose_elites(torch.tensor([2.0, 1.0]), None) == [0, 1]
    assert not caplog.records
    with pytest.raises(NumericalFailure, match="lower the learning rate"):
        choose_elites(torch.tensor([math.inf, math.inf]), 1)
