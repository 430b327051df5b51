"""A few cells of the table of environments that misbehave, so that the benchmark stays true."""

from pathlib import Path

import pytest

from benchmarks.misbehaviour import Cell, lasting_workers, play


@pytest.fixture
def played(ray_session: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, Cell]:
    with capfd.disabled():
        return {
            "stopped": play("four values", "stop", 3, tmp_path),
            "skipped": play("four values", "skip", 1, tmp_path),
            "unusual": play("prints", "stop", 1, tmp_path),
        }


def test_misbehaviour_ends_in_a_line_or_in_a_dataset(played: dict[str, Cell]) -> None:
    assert [cell.problems for cell in played.values()] == [(), (), ()]
    assert played["stopped"].line.startswith("error: expected benchmarks.misbehaving:Misbehaving-")
    assert played["stopped"].content == ""
    assert played["skipped"].mark == "s"
    assert '"episode":3' in played["skipped"].content
    assert '"episode"' not in played["unusual"].content
    assert lasting_workers() == []
