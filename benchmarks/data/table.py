"""Rows of inputs and targets, and how they are dealt out for training and testing.

Shapes: N rows, I inputs, D targets.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """What a regression learns from or is judged by, in original units.

    Attributes:
        inputs: [N, I].
        targets: [N, D].
    """

    inputs: Array
    targets: Array

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: Rows) -> Self:
        return type(self)(*(column[rows] for column in vars(self).values()))


def shuffle_split(count: int, test_share: float, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to train on and to test on, in scikit-learn's ``train_test_split`` order."""
    order = np.random.RandomState(seed).permutation(count)
    test = math.ceil(count * test_share)
    return order[test:], order[:test]
