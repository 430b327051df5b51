"""Tables, results files and the last line of a benchmark."""

import argparse
import json
import math
from datetime import date
from pathlib import Path

import pytest

from benchmarks.data import uci
from benchmarks.data.paper import Printed, uci_figures
from benchmarks.report import (
    Runs,
    command_line,
    comparison_table,
    markdown_table,
    print_figures,
    standard_errors_apart,
    write_results,
)

NAN = math.nan


def test_paper_figures_are_whole() -> None:
    for name in uci.SETS:
        figures = uci_figures(name, runs=uci.SETS[name].splits)
        assert len(figures) == 12
        assert all(set(each) == {"ll", "rmse"} for key, each in figures.items() if key != "mse")
        assert set(figures["mse"]) == {"rmse"}
    assert figures["beta=0"]["ll"] == Printed("-2.86 ± 5.18", -2.86, 5.18, 20)
    assert uci_figures("protein", 5)["vbem_star"]["rmse"].mean == 4.35
    assert uci_figures("carbon", 20)["beta=1"]["ll"].std == 20.88


def test_rounding_of_a_printed_figure() -> None:
    assert Printed.parse("0.0004±0.0000", 20).rounding == pytest.approx(0.00005)
    assert Printed.parse("-3.25±0.31", 20).rounding == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("values", "mean", "median"),
    [
        ((1.0, 2.0, 3.0), "2.0 ± 1.0", "2.0 [1.0, 3.0]"),
        ((0.0061, 0.0068, 0.0119), "0.0083 ± 0.0032", "0.0068 [0.0061, 0.0119]"),
        ((100.0, 300.0), "200 ± 141", "200 [100, 300]"),
        ((0.5,), "0.500 ± 0.000", "0.500 [0.500, 0.500]"),
        ((0.0, 0.0), "0.00 ± 0.00", "0.00 [0.00, 0.00]"),
        (
            (1.0, 2.0, 3.0, NAN),
            "2.0 ± 1.0 (1 of 4 diverged)",
            "2.0 [1.0, 3.0] (1 of 4 diverged)",
        ),
        ((NAN, math.inf), "diverged", "diverged"),
    ],
)
def test_text_of_runs(values: tuple[float, ...], mean: str, median: str) -> None:
    assert Runs(values).text("mean") == mean
    assert Runs(values).text("median") == median


def test_standard_errors_apart() -> None:
    paper = Printed.parse("10.0±2.0", 4)
    # Four runs of std 2 about 13: both means have a standard error of one.
    ours = Runs((13 - math.sqrt(3), 13 - math.sqrt(3), 13 + math.sqrt(3), 13 + math.sqrt(3)))
    assert standard_errors_apart(ours, paper) == pytest.approx((3 - 0.05) / math.sqrt(2))
    assert standard_errors_apart(Runs((10.04, 10.04)), Printed.parse("10.0±0.0", 4)) == 0
    assert standard_errors_apart(Runs((10.06, 10.06)), Printed.parse("10.0±0.0", 4)) == math.inf
    assert standard_errors_apart(Runs((10.0, NAN)), paper) == math.inf


def test_markdown_table() -> None:
    table = markdown_table(["", "LL"], [["nll", "1.0"], ["mse", ""]])
    assert table == "|  | LL |\n| --- | ---: |\n| nll | 1.0 |\n| mse |  |"


def test_comparison_table() -> None:
    paper = {
        "beta=0": {"ll": Printed.parse("2.0±1.0", 20), "rmse": Printed.parse("9.0±1.0", 20)},
        "mse": {"rmse": Printed.parse("2.0±1.0", 20)},
    }
    runs = Runs((1.0, 2.0, 3.0))
    ours = {
        "beta=0": {"ll": runs, "rmse": runs, "kl": runs},
        "mse": {"rmse": runs},
        "trustable": {"ll": runs, "rmse": Runs((NAN,))},
    }
    assert comparison_table(ours, paper, {"ll": 2.5, "rmse": 1 / 3}).splitlines() == [
        "|  | ll | paper | apart | rmse | paper | apart | kl |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| beta=0 | 2.0 ± 1.0 | 2.0 ± 1.0 | 0.0 | 2.0 ± 1.0 | 9.0 ± 1.0 | **11.2** | 2.0 ± 1.0 |",
        "| mse |  |  |  | 2.0 ± 1.0 | 2.0 ± 1.0 | 0.0 |  |",
        "| trustable | 2.0 ± 1.0 |  |  | diverged |  |  |  |",
        "| oracle | 2.5 |  |  | 0.3333 |  |  |  |",
    ]


def test_comparison_table_without_a_paper() -> None:
    table = comparison_table({"nll": {"NLL": Runs((1.0, 2.0, 6.0))}}, statistic="median")
    assert table.splitlines()[0] == "|  | NLL |"
    assert table.splitlines()[2] == "| nll | 2.0 [1.0, 6.0] |"
    assert len(table.splitlines()) == 3


def test_command_line_hides_paths() -> None:
    arguments = argparse.Namespace(
        data=Path("/somewhere/uci"),
        budget="paper",
        sets=["yacht", "wine-red"],
        resume=True,
        out=None,
    )
    assert command_line("uci", arguments) == (
        "python -m benchmarks.uci --data DATA --budget paper --sets yacht wine-red --resume"
    )


def test_results_say_how_they_were_made(tmp_path: Path) -> None:
    path = tmp_path / "results" / "uci.md"
    for body in ("old", "new"):
        write_results(path, "UCI", "python -m benchmarks.uci", 7, body, day=date(2025, 1, 2))
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# UCI\n\nMade by `python -m benchmarks.uci`, seed 7, on 2025-01-02, ")
    assert text.endswith("\n\nnew\n")
    assert [entry.name for entry in path.parent.iterdir()] == ["uci.md"]


def test_last_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    print_figures("synthetic", {"nll": -3.2, "rmse": NAN, "seeds": 10})
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last) == {
        "benchmark": "synthetic",
        "figures": {"nll": -3.2, "rmse": None, "seeds": 10},
    }
