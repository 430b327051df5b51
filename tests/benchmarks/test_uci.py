"""The UCI protocol on generated files: columns, splits, scalers, and errors."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import uci
from dynlearn.errors import CorruptData, NotFound


def write(folder: Path, name: str) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(uci.SETS[name].rows, uci.SETS[name].columns))
    np.savetxt(folder / f"{name}.txt", values)
    return values


def test_columns(tmp_path: Path) -> None:
    values = write(tmp_path, "energy")
    table = uci.load(tmp_path, "energy")
    np.testing.assert_allclose(table.inputs, values[:, :8])
    np.testing.assert_allclose(table.targets, values[:, [9, 8]])
    values = write(tmp_path, "yacht")
    table = uci.load(tmp_path, "yacht")
    np.testing.assert_allclose(table.inputs, values[:, :6])
    np.testing.assert_allclose(table.targets, values[:, 6:])


def test_sizes_are_those_that_the_paper_prints() -> None:
    printed = {
        "carbon": (10721, 5, 3),
        "concrete": (1030, 8, 1),
        "energy": (768, 8, 2),
        "housing": (506, 13, 1),
        "kin8nm": (8192, 8, 1),
        "naval": (11934, 16, 2),
        "power": (9568, 4, 1),
        "protein": (45730, 9, 1),
        "superconductivity": (21263, 81, 1),
        "wine-red": (1599, 11, 1),
        "wine-white": (4898, 11, 1),
        "yacht": (308, 6, 1),
    }
    sizes = {
        name: (each.rows, len(each.inputs), len(each.targets)) for name, each in uci.SETS.items()
    }
    assert sizes == printed


def test_scikit_splits() -> None:
    # From scikit-learn's train_test_split(arange(768), test_size=0.1, random_state=6).
    split = uci.splits("energy")[0]
    assert split.test[:5].tolist() == [239, 243, 764, 122, 33]
    assert split.train[:5].tolist() == [647, 312, 232, 277, 13]
    assert (len(split.train), len(split.test)) == (691, 77)


def test_drawn_splits() -> None:
    # From np.random.seed(1); np.random.choice(range(308), 308, replace=False), twice.
    first, second = uci.splits("yacht")[:2]
    assert first.train[:5].tolist() == [73, 304, 228, 238, 259]
    assert second.train[:5].tolist() == [162, 101, 114, 20, 23]
    assert (len(first.train), len(first.test)) == (277, 31)


@pytest.mark.parametrize("name", ["energy", "yacht", "protein"])
def test_every_row_is_in_one_part_of_every_split(name: str) -> None:
    splits = uci.splits(name)
    assert len(splits) == (5 if name == "protein" else 20)
    for split in splits:
        both = np.concatenate([split.train, split.test])
        np.testing.assert_array_equal(np.sort(both), np.arange(uci.SETS[name].rows))
        np.testing.assert_array_equal(np.concatenate(split.tuning()), split.train)
    assert len(splits[0].tuning()[0]) == int(0.8 * len(splits[0].train))


def test_scalers_leave_a_constant_column_alone(tmp_path: Path) -> None:
    values = write(tmp_path, "yacht")
    values[:, 2] = 0.998
    np.savetxt(tmp_path / "yacht.txt", values)
    train = uci.load(tmp_path, "yacht")[uci.splits("yacht")[0].train]
    inputs, targets = uci.fit_scalers(train)
    std = train.inputs.std(0)
    std[2] = 1
    np.testing.assert_allclose(inputs.std, std)
    np.testing.assert_allclose(inputs.mean, train.inputs.mean(0))
    np.testing.assert_allclose(targets.std, train.targets.std(0))


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"got No such file.*archive\.ics\.uci\.edu/dataset/316.*18"):
        uci.load(tmp_path / "absent", "naval")


def test_an_unknown_set_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="did you mean wine-red"):
        uci.load(tmp_path, "winered")
    with pytest.raises(NotFound, match="did you mean yacht"):
        uci.splits("yachts")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected 308 × 7 finite numbers"),
        ("1 2 3\n" * 308, "got 308 × 3"),
        ("1 2 3 4 5 6 7\n" * 307, "got 307 × 7"),
        ("1 2 3 4 5 6 nan\n" * 308, "308 of them not finite"),
        ("a b c d e f g\n" + "1 2 3 4 5 6 7\n" * 308, "without a header"),
        ("1,5 2 3 4 5 6 7\n" * 308, "decimal points"),
        ("1 2\n1 2 3\n", "expected only numbers"),
        ("\x00\xff", "expected only numbers"),
    ],
)
def test_a_file_that_is_not_the_set(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "yacht.txt").write_text(text, encoding="latin-1")
    with pytest.raises(CorruptData, match=message):
        uci.load(tmp_path, "yacht")
