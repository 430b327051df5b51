"""The twelve UCI regression sets of Seitzer et al. 2022, read from a folder, with their splits.

A set is a text file ``NAME.txt``: one row a line, numbers with decimal points between blanks, no
header, rows in the archive's order, columns in the archive's order but for ``protein``, whose
target comes last. The splits are computed, so no index files are needed.

Shapes: N rows, I inputs, D targets.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.data.table import Array, Rows, Table, shuffle_split
from dynlearn.errors import CorruptData, NotFound, nearest
from dynlearn.models.scaling import Scaler


@dataclass(frozen=True)
class UciSet:
    """One of the sets, and how the paper trains on it.

    Attributes:
        source: where the file is to be had.
        rows: N.
        columns: I + D, as in the file.
        targets: which columns are targets; all others are inputs.
        splits: how many the paper has.
        updates: the most updates of a training run.
        hidden: the width of the one hidden layer.
    """

    name: str
    source: str
    rows: int
    columns: int
    targets: tuple[int, ...] = (-1,)
    splits: int = 20
    updates: int = 20_000
    hidden: int = 50

    @property
    def inputs(self) -> list[int]:
        """The columns that are inputs."""
        targets = {column % self.columns for column in self.targets}
        return [column for column in range(self.columns) if column not in targets]


def _archive(number: int, title: str) -> str:
    return f"{title}, https://archive.ics.uci.edu/dataset/{number}"


_WINE = _archive(186, "Wine Quality")
_LONG = 100_000
_SETS = (
    UciSet("carbon", _archive(448, "Carbon Nanotubes"), 10721, 8, (7, 6, 5), updates=_LONG),
    UciSet("concrete", _archive(165, "Concrete Compressive Strength"), 1030, 9),
    UciSet("energy", _archive(242, "Energy Efficiency"), 768, 10, (9, 8)),
    UciSet("housing", "Boston Housing, https://lib.stat.cmu.edu/datasets/boston", 506, 14),
    UciSet("kin8nm", "DELVE's kin8nm, https://www.openml.org/d/189", 8192, 9, updates=_LONG),
    UciSet(
        "naval",
        _archive(316, "Condition Based Maintenance of Naval Propulsion Plants"),
        11934,
        18,
        (17, 16),
        updates=_LONG,
    ),
    UciSet("power", _archive(294, "Combined Cycle Power Plant"), 9568, 5, updates=_LONG),
    UciSet(
        "protein",
        _archive(265, "Physicochemical Properties of Protein Tertiary Structure"),
        45730,
        10,
        splits=5,
        updates=_LONG,
        hidden=100,
    ),
    UciSet("superconductivity", _archive(464, "Superconductivty Data"), 21263, 82, updates=_LONG),
    UciSet("wine-red", _WINE, 1599, 12),
    UciSet("wine-white", _WINE, 4898, 12),
    UciSet("yacht", _archive(243, "Yacht Hydrodynamics"), 308, 7),
)
SETS = {each.name: each for each in _SETS}

# The sets whose splits were made by scikit-learn; the others' come from one stream of draws.
_SCIKIT = {"carbon", "energy", "naval", "superconductivity", "wine-white"}


def load(folder: Path, name: str) -> Table:
    """Read a set: inputs [N, I] and targets [N, D], in original units.

    Raises:
        NotFound: no set has this name, or the folder has no file of it.
        CorruptData: the file is not the set's table of numbers.
    """
    uci_set = find(name)
    path = folder / f"{name}.txt"
    try:
        values = _read_numbers(path)
    except OSError as error:
        raise NotFound(
            f"expected the UCI set {name} at {path}, got {error.strerror or error}; get it from "
            f"{uci_set.source}, and save it as {uci_set.rows} lines of {uci_set.columns} numbers "
            "between blanks, without a header"
        ) from error
    except ValueError as error:
        raise CorruptData(
            f"expected only numbers between blanks in {path}, got: {error}; save it anew without "
            "a header and with decimal points"
        ) from error
    # Other rows or another order would give other splits, and figures like no paper's.
    if values.shape != (uci_set.rows, uci_set.columns) or not np.isfinite(values).all():
        shape = " × ".join(map(str, values.shape))
        raise CorruptData(
            f"expected {uci_set.rows} × {uci_set.columns} finite numbers in {path}, got {shape}, "
            f"{np.count_nonzero(~np.isfinite(values))} of them not finite; get it from "
            f"{uci_set.source}"
        )
    return Table(values[:, uci_set.inputs], values[:, list(uci_set.targets)])


def find(name: str) -> UciSet:
    """Return the set of this name.

    Raises:
        NotFound: there is none.
    """
    if name not in SETS:
        raise NotFound(f"expected a UCI set, got {name!r}; {nearest(name, SETS)}")
    return SETS[name]


@dataclass(frozen=True)
class Split:
    """Rows to train on (in a fixed order) and to test on."""

    train: Rows
    test: Rows

    def tuning(self) -> tuple[Rows, Rows]:
        """Return the first 80 % of the training rows to tune on and the rest to select by."""
        count = int(0.8 * len(self.train))
        return self.train[:count], self.train[count:]


def splits(name: str) -> list[Split]:
    """Return the paper's splits of a set, 90 % to train on.

    Raises:
        NotFound: no set has this name.
    """
    uci_set = find(name)
    if name in _SCIKIT:
        return [Split(*shuffle_split(uci_set.rows, 0.1, seed=6 + i)) for i in range(uci_set.splits)]
    return list(_drawn_splits(uci_set))


def _drawn_splits(uci_set: UciSet) -> Iterator[Split]:
    stream = np.random.RandomState(1)
    train = round(0.9 * uci_set.rows)
    for _ in range(uci_set.splits):
        order = stream.choice(uci_set.rows, uci_set.rows, replace=False)
        yield Split(order[:train], order[train:])


def fit_scalers(train: Table) -> tuple[Scaler, Scaler]:
    """Return scalers of the inputs and of the targets in float64; a constant column keeps one."""
    scalers = Scaler(train.inputs.shape[1]).double(), Scaler(train.targets.shape[1]).double()
    for scaler, values in zip(scalers, (train.inputs, train.targets), strict=True):
        scaler.fit(torch.from_numpy(values))
    return scalers


def _read_numbers(path: Path) -> Array:
    with warnings.catch_warnings():
        # An empty file is an error of shape, with a message of its own.
        warnings.simplefilter("ignore", UserWarning)
        with path.open(encoding="utf-8") as file:
            return np.loadtxt(file, dtype=np.float64, ndmin=2)
