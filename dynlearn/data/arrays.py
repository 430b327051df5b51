"""The arrays of an episode: their names, shapes and dtypes, and the check that they are so.

Shapes: K episodes, T steps, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynlearn.errors import CorruptData

Array = NDArray[Any]

STATE_ARRAYS = ("observations", "achieved_goals", "desired_goals")
"""Arrays with a row for each state, T+1 an episode."""
STEP_ARRAYS = ("actions", "rewards", "terminated", "truncated")
"""Arrays with a row for each step, T an episode."""
ARRAYS = STATE_ARRAYS + STEP_ARRAYS

NO_SEED = -1
"""What `EpisodeTable.seeds` holds where an episode's seed is unknown."""


def check_arrays(
    arrays: Mapping[str, Array | None], indices: NDArray[np.int64], lengths: NDArray[np.int64]
) -> None:
    """Check the arrays of episodes end to end.

    Args:
        arrays: each by its name, None where there is no such array.
        indices: of the episodes, [K].
        lengths: the T of each, [K].

    Raises:
        CorruptData: one has a wrong shape or dtype, or holds NaN or infinity.
    """
    if (lengths < 1).any():
        raise CorruptData(
            f"expected at least one step in episode {indices[np.argmin(lengths)]}, got none"
        )
    where = f"episode {indices[0]}" if len(indices) == 1 else f"{len(indices)} episodes"
    if (arrays["achieved_goals"] is None) != (arrays["desired_goals"] is None):
        raise CorruptData(f"expected both goals or neither in {where}, got one")
    for name, values in arrays.items():
        if values is None:
            continue
        _check_dtype(name, values, where)
        rows = int(lengths.sum()) + (len(lengths) if name in STATE_ARRAYS else 0)
        if len(values) != rows:
            raise CorruptData(
                f"expected {rows} rows of {name} in {where}, got {len(values)} "
                f"beside {len(arrays['rewards'])} rewards"  # type: ignore[arg-type]
            )
        if not _all_finite(values):
            raise CorruptData(_name_bad_number(name, values, indices, lengths))


def _check_dtype(name: str, values: Array, where: str) -> None:
    shape, dtype = values.shape, values.dtype
    if name == "rewards":
        fits, expected = values.ndim == 1 and dtype == np.float64, "float64 [T]"
    elif name in ("terminated", "truncated"):
        fits, expected = values.ndim == 1 and dtype == np.bool_, "bool [T]"
    elif name == "actions" and values.ndim == 1:
        fits, expected = dtype == np.int64, "numbers [T, A] or int64 [T]"
    else:
        fits = values.ndim == 2 and shape[1] > 0 and dtype.kind in "fiu" and dtype.isnative
        expected = "numbers [T, A] or int64 [T]" if name == "actions" else "numbers [T+1, columns]"
    if not fits:
        raise CorruptData(f"expected {name} of {where} as {expected}, got {dtype} {list(shape)}")


def _all_finite(values: Array) -> bool:
    if values.dtype.kind != "f":
        return True
    # A sum is finite only if all its terms are, and needs no array of flags; it may overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())


def _name_bad_number(
    name: str, values: Array, indices: NDArray[np.int64], lengths: NDArray[np.int64]
) -> str:
    row = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0])
    ends = np.cumsum(lengths + (name in STATE_ARRAYS))
    position = int(np.searchsorted(ends, row, side="right"))
    step = row - (int(ends[position - 1]) if position else 0)
    bad = values[row].reshape(-1)
    return (
        f"expected finite numbers in {name} of episode {indices[position]}, "
        f"got {bad[~np.isfinite(bad)][0]} in row {step}"
    )
