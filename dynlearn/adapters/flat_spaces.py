"""Nested spaces as columns: flattened in Gymnasium's own way, each column named by its path.

A Dict's parts go by their keys, a Tuple's by their places, as in ``arm.joint[2]``; a choice of n
becomes n columns such as ``grip=0``, of which one is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate
from numpy.typing import NDArray

from dynlearn.errors import InvalidInput
from dynlearn.spaces import BoxSpace

Space = gymnasium.Space[Any]

_MOST_COLUMNS = 10_000
_WHOLE_IN_FLOAT32 = 2**24


class _Leaf(NamedTuple):
    path: str
    space: Space


def describe_flat(space: Space, name: str) -> BoxSpace:
    """Return a nested space as the vector that it is flattened to.

    Args:
        space: of Boxes, Discretes, MultiDiscretes and MultiBinaries, in Dicts and Tuples.
        name: of the whole, such as ``observation``, where a path would be empty.

    Raises:
        InvalidInput: a part is an image or has no fixed number of columns, or there are too many
            columns, or none.
    """
    names: list[str] = []
    one_hot: list[tuple[int, int]] = []
    integers: list[int] = []
    for leaf in _leaves(space, "" if isinstance(space, spaces.Dict) else name):
        _check(leaf)
        first = len(names)
        names += _names(leaf)
        for count in _choices(leaf.space):
            one_hot.append((first, count))
            first += count
        if isinstance(leaf.space, spaces.MultiBinary) or _is_box_of_integers(leaf.space):
            integers += range(first, len(names))
    if not names:
        raise InvalidInput(f"expected columns in the {name} space, got {space}")
    box = cast(spaces.Box, spaces.flatten_space(space))
    return BoxSpace(
        low=tuple(box.low.tolist()),
        high=tuple(box.high.tolist()),
        dtype=_dtype(space),
        columns=tuple(names),
        one_hot=tuple(one_hot),
        integers=tuple(integers),
    )


def flatten(space: Space, value: Any, dtype: str) -> NDArray[Any]:
    """Return a value of a nested space as the vector of its columns."""
    return np.asarray(spaces.flatten(space, value)).astype(dtype)


def flatten_rows(space: Space, values: Any, rows: int) -> NDArray[Any]:
    """Return so many values of a nested space, given as arrays in its form, as [rows, columns]."""
    parts, dtype = iterate(batch_space(space, rows), values), _dtype(space)
    return np.stack([flatten(space, part, dtype) for part in parts])


def unflatten(space: Space, columns: NDArray[Any]) -> Any:
    """Return the value of a nested space that a vector of columns stands for."""
    return spaces.unflatten(space, columns)


def _dtype(space: Space) -> str:
    """Return the least dtype of real numbers that holds a space's values.

    Gymnasium's own is float64 as soon as there is a choice. An action drawn in that would be
    rounded by the environment, which then took another than was taken down.
    """
    leaves = (leaf.space for leaf in _leaves(space, ""))
    needs_float64 = any(isinstance(leaf, spaces.Box) and _needs_float64(leaf) for leaf in leaves)
    return "float64" if needs_float64 else "float32"


def _needs_float64(box: spaces.Box) -> bool:
    if np.issubdtype(box.dtype, np.floating):
        return box.dtype.itemsize > 4
    limits = (int(box.low.min(initial=0)), int(box.high.max(initial=0)))
    return max(map(abs, limits)) > _WHOLE_IN_FLOAT32


def _leaves(space: Space, path: str) -> Iterator[_Leaf]:
    parts: Sequence[tuple[object, Space]]
    if isinstance(space, spaces.Dict):
        parts = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        parts = list(enumerate(space.spaces))
    else:
        yield _Leaf(path, space)
        return
    for key, part in parts:
        yield from _leaves(part, f"{path}.{key}" if path else str(key))


def _check(leaf: _Leaf) -> None:
    path, space = leaf
    known = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    if not isinstance(space, known):
        raise InvalidInput(
            f"expected numbers in a fixed number of columns, got {path}, a "
            f"{type(space).__name__} space; leave it out, or turn it into a vector, before there "
            "are data of it"
        )
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 3:
        raise InvalidInput(
            f"expected columns of numbers, got {path}, images of shape {list(space.shape)}; leave "
            "them out, or turn them into vectors, before there are data of them"
        )
    columns = int(spaces.flatdim(space))
    if columns > _MOST_COLUMNS:
        raise InvalidInput(
            f"expected at most {_MOST_COLUMNS} columns, got {columns} of {path}; leave it out, or "
            "turn it into a smaller vector, before there are data of it"
        )


def _names(leaf: _Leaf) -> list[str]:
    path, space = leaf
    if isinstance(space, spaces.Discrete):
        return [f"{path}={choice}" for choice in range(space.start, space.start + space.n)]
    shape = cast(tuple[int, ...], space.shape)
    places = [",".join(map(str, place)) for place in product(*map(range, shape))]
    elements = [f"{path}[{place}]" if place else path for place in places]
    if not isinstance(space, spaces.MultiDiscrete):
        return elements
    firsts = np.broadcast_to(getattr(space, "start", 0), shape).flatten().tolist()
    return [
        f"{element}={choice}"
        for element, first, count in zip(elements, firsts, _choices(space), strict=True)
        for choice in range(first, first + count)
    ]


def _choices(space: Space) -> list[int]:
    """Return how many columns each choice of a leaf has."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(count) for count in space.nvec.flatten()]
    return []


def _is_box_of_integers(space: Space) -> bool:
    return isinstance(space, spaces.Box) and not np.issubdtype(space.dtype, np.floating)
