"""Actions outside the bounds of their space.

Shapes: M steps, A action.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dynlearn.data.episodes import EpisodeTable
from dynlearn.spaces import ActionSpace, BoxSpace

_ROUNDING = 1e-6
"""Of a bound's size: what float32 makes of one that is kept in float64."""
_NAMED = 5


def steps_outside(table: EpisodeTable, space: ActionSpace) -> NDArray[np.int64]:
    """Return in how many steps each action column [A], or the choice [1], leaves its bounds."""
    if not isinstance(space, BoxSpace):
        outside = (table.actions < space.start) | (table.actions >= space.start + space.n)
        of_choices: NDArray[np.int64] = outside.sum(keepdims=True)
        return of_choices
    low, high = np.array(space.low), np.array(space.high)
    below = table.actions < low - _ROUNDING * np.maximum(1, abs(low))
    above = table.actions > high + _ROUNDING * np.maximum(1, abs(high))
    counts: NDArray[np.int64] = (below | above).sum(axis=0)
    return counts


def describe_outside(counts: NDArray[np.int64], steps: int, space: ActionSpace) -> str:
    """Return in one line which action columns are outside their bounds, and how often.

    Args:
        counts: of the steps outside, [A], not all zero.
        steps: of all.
        space: of the actions.
    """
    names = space.names("action") if isinstance(space, BoxSpace) else ("action",)
    outside = np.flatnonzero(counts).tolist()
    columns = [f"{names[column]} in {counts[column] / steps:.3g}" for column in outside[:_NAMED]]
    more = f" and {len(outside) - _NAMED} columns more" if len(outside) > _NAMED else ""
    return (
        "expected actions within the bounds of their space, got others: "
        f"{', '.join(columns)} of the steps{more}"
    )
