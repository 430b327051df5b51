"""Numbers that cannot be right: so far from all others that they would drown what is learned.

Shapes: M rows, C columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynlearn.data.arrays import STATE_ARRAYS
from dynlearn.data.episodes import EpisodeTable

_RARE_SHARE = 0.005
_RARE_ROWS = 3
_RANGES = 1000.0
"""How often as far from the median as nearly all others. Contacts of robots that are seldom, such
as an object's that lies still for most of an episode, come to about a hundred."""

_ARRAYS = ("observations", "achieved_goals", "desired_goals", "actions", "rewards")


@dataclass(frozen=True)
class Outlier:
    """The number of a column that is furthest from the others.

    Attributes:
        array: which array of the episodes it is in.
        column: of that array.
        episode: index of its episode.
        value: the number.
        median: of its column.
        usual: how far from the median the others are at most.
        rows: how many rows of the column are as strange.
    """

    array: str
    column: int
    episode: int
    value: float
    median: float
    usual: float
    rows: int


def find_outliers(table: EpisodeTable) -> list[Outlier]:
    """Return the worst number of each column that has any beyond its robust range.

    A number is beyond it if it is a thousand times as far from the median as all but a few of
    its column are; the few are one in two hundred, at least three.
    """
    found = []
    for name in _ARRAYS:
        array = getattr(table, name)
        if array is None or (name == "actions" and array.ndim == 1):
            continue
        columns = array.reshape(len(array), -1).T
        for column, values in enumerate(columns):
            outlier = _worst(table, name, column, values)
            found += [] if outlier is None else [outlier]
    return found


def describe_outliers(outliers: Sequence[Outlier], observation_columns: Sequence[str] = ()) -> str:
    """Return the worst of some outliers in one line.

    Args:
        outliers: at least one.
        observation_columns: what the observation's columns are called, if that is known.
    """
    worst = max(outliers, key=lambda found: abs(found.value - found.median) / found.usual)
    name = f"{worst.array.removesuffix('s')}[{worst.column}]"
    if worst.array == "observations" and observation_columns:
        name = observation_columns[worst.column]
    rows = sum(found.rows for found in outliers)
    return (
        f"expected numbers of one size in each column, got {worst.value:g} in {name} of episode "
        f"{worst.episode}, where nearly all are within {worst.usual:.3g} of {worst.median:.3g} "
        f"({rows} {'row' if rows == 1 else 'rows'} of {len(outliers)} "
        f"{'column' if len(outliers) == 1 else 'columns'} like that); a model learns little beside "
        "such numbers: leave those episodes out or mend them"
    )


def _worst(table: EpisodeTable, name: str, column: int, values: NDArray[Any]) -> Outlier | None:
    # Half of the numbers, so that the difference of two of them is one too.
    values = values.astype(np.float64) / 2
    median = float(np.median(values))
    distance = np.abs(values - median)
    few = min(max(_RARE_ROWS, int(len(values) * _RARE_SHARE)), len(values) - 1)
    usual = float(np.partition(distance, len(values) - 1 - few)[len(values) - 1 - few])
    # A column that never changes has no range; its size, or else 1, stands in.
    usual = usual or max(abs(median), 0.5)
    beyond = distance / _RANGES > usual
    if not beyond.any():
        return None
    row = int(np.argmax(distance))
    ends = np.cumsum(table.lengths + (name in STATE_ARRAYS))
    episode = int(table.indices[np.searchsorted(ends, row, side="right")])
    return Outlier(
        name, column, episode, 2 * float(values[row]), 2 * median, 2 * usual, int(beyond.sum())
    )
