"""The race: whose turn it is, which laps count, and a contender that falls out."""

import time
from functools import partial
from itertools import count, pairwise

import pytest

from benchmarks.race import Turn, race


def run_laps(tag: float, turn: Turn) -> None:
    turn({})
    for lap in count():
        began = time.monotonic()
        time.sleep(0.01)
        turn({"tag": tag, "lap": lap, "began": began, "ended": time.monotonic()})


def run_one_lap(turn: Turn) -> None:
    turn({})
    turn({})


def test_every_lap_but_the_first_counts() -> None:
    laps = race({"a": partial(run_laps, 1.0), "b": partial(run_laps, 2.0)}, rounds=3)
    assert [lap.measures["lap"] for lap in laps["a"]] == [1, 2, 3]
    assert {lap.measures["tag"] for lap in laps["b"]} == {2.0}
    assert all(0.01 <= lap.seconds < 5 for done in laps.values() for lap in done)


def test_one_at_a_time() -> None:
    laps = race({name: partial(run_laps, 0.0) for name in "abc"}, rounds=4)
    spans = sorted(
        (lap.measures["began"], lap.measures["ended"]) for done in laps.values() for lap in done
    )
    assert len(spans) == 12
    assert all(ended <= began for (_, ended), (began, _) in pairwise(spans))


def test_one_that_ends_is_named() -> None:
    with pytest.raises(RuntimeError, match="expected a lap of short, but it has ended"):
        race({"long": partial(run_laps, 0.0), "short": run_one_lap}, rounds=3)
