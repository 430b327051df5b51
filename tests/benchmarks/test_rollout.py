import json
from functools import partial

import pytest
import torch

from benchmarks.race import Lap
from benchmarks.report import print_figures
from benchmarks.rollout import (
    imagine,
    make_plans,
    multiply,
    returns_moved_by_bfloat16,
    rollout_gflop,
    summarise,
)


def test_the_products_are_those_of_the_layers() -> None:
    row = 32 * 200 + 3 * 200 * 200 + 200 * 56
    assert rollout_gflop() == pytest.approx(2e-9 * 350 * 20 * 15 * row)
    assert rollout_gflop() == pytest.approx(28.9, abs=0.05)


def test_the_speedup_is_the_median_of_the_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {
        "dynlearn": (1.0, 2.0, 4.0),
        "dynlearn bfloat16": (1.0, 1.0, 2.0),
        "mbrl-lib": (3.0, 8.0, 8.0),
    }
    laps = {
        f"{who}, {propagation}": [Lap(factor * second, {}) for second in times]
        for propagation, factor in (("ts1", 1.0), ("tsinf", 0.5))
        for who, times in seconds.items()
    }
    laps["products alone"] = [Lap(second, {}) for second in (0.5, 1.5, 3.0)]
    print_figures("rollout", summarise(laps))
    *table, last = capsys.readouterr().out.splitlines()
    assert [line.split("|")[-2].strip() for line in table[2:-1]] == ["3.00", "4.00", "1.00"] * 2
    figures = json.loads(last)["figures"]
    assert figures["speedup"] == figures["tsinf_speedup"] == 3
    assert figures["bfloat16_speedup"] == figures["tsinf_bfloat16_speedup"] == 4
    assert (figures["products_share"], figures["tsinf_products_share"]) == (0.75, 1.5)
    assert (figures["seconds"], figures["mbrl_seconds"]) == (2, 8)
    assert (figures["tsinf_seconds"], figures["tsinf_mbrl_seconds"]) == (1, 4)
    assert figures["tsinf_gflops"] == pytest.approx(rollout_gflop())


@pytest.mark.parametrize("what", ["rollout", "products"])
def test_a_lap_is_one_rollout(what: str) -> None:
    laps = 0

    def turn(measures: object) -> None:
        nonlocal laps
        laps += 1
        if laps == 3:
            raise SystemExit

    contenders = {
        "rollout": partial(imagine, "ts1", "float32", torch.zeros(28), torch.zeros(2, 3, 4)),
        "products": multiply,
    }
    with pytest.raises(SystemExit):
        contenders[what](turn)


def test_bfloat16_moves_returns_a_little() -> None:
    start, actions = make_plans()
    assert 0 < returns_moved_by_bfloat16(start, actions[:40]) < 0.05
