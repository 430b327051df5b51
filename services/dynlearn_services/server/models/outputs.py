"""Outputs: what a model gives, by its protocol names, and of what shapes.

Shapes: E members, N rows, D predicted columns.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dynlearn.models.dynamics import DynamicsModel
from dynlearn.protocol.documents import Datatype
from dynlearn.protocol.names import OUTPUTS, REWARD_MEAN, SAMPLE, SAMPLE_MEMBER
from dynlearn.protocol.tensors import DTYPES, Array
from dynlearn_services.server.models.inputs import Inputs

# Of `Prediction`, by the names of its outputs.
ATTRIBUTES = {name: attribute for attribute, name in OUTPUTS.items()}
SAMPLES = (SAMPLE, SAMPLE_MEMBER)

# What keeps the origin that a model takes off its observations.
_PLACES = (OUTPUTS["mean"], OUTPUTS["member_means"], SAMPLE)


class Outputs:
    """The outputs of one model; -1 in a shape stands for the rows of a request."""

    def __init__(self, model: DynamicsModel, with_reward: bool):
        """Take the shapes from a model.

        Args:
            model: what predicts.
            with_reward: whether it has learned a reward.
        """
        self.shapes = _shapes(model)
        self._of_places: Datatype = "FP32" if model.spec.origin is None else "FP64"
        if with_reward:
            self.shapes[REWARD_MEAN] = [-1]

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def datatype(self, name: str) -> Datatype:
        """Return the protocol's name of an output's dtype."""
        if name == SAMPLE_MEMBER:
            return "INT64"
        return self._of_places if name in _PLACES else "FP32"

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of an output."""
        return DTYPES[self.datatype(name)]

    def shape(self, name: str, inputs: Inputs) -> tuple[int, ...]:
        """Return an output's shape for some inputs."""
        shape = self.shapes[name]
        if shape[0] == -1:
            return (inputs.rows, *shape[1:])
        members = shape[0]
        if inputs.member is not None:
            members = 1
        elif inputs.members is not None:
            members = len(inputs.members)
        return (members, inputs.rows, *shape[2:])

    def count_bytes(self, names: Sequence[str], inputs: Inputs) -> int:
        """Return how many bytes some outputs are for some inputs."""
        return sum(
            self.dtype(name).itemsize * math.prod(self.shape(name, inputs)) for name in names
        )

    def rows_of(self, name: str, values: Array, rows: slice) -> Array:
        """Return some rows of an output."""
        part: Array = values[rows] if self.shapes[name][0] == -1 else values[:, rows]
        return part

    def join(self, name: str, parts: Sequence[Array]) -> Array:
        """Return the rows of all parts of an output, one part after the other."""
        return np.concatenate(parts, 0 if self.shapes[name][0] == -1 else 1)


def _shapes(model: DynamicsModel) -> dict[str, list[int]]:
    targets = len(model.spec.target_columns)
    matrix, members = [-1, targets, targets], [model.members, -1, targets]
    shapes = {
        "mean": [-1, targets],
        "variance": [-1, targets],
        "covariance": matrix,
        "aleatoric": matrix,
        "epistemic": matrix,
        "member_means": members,
        "member_variances": members,
        "member_scale_trils": [*members, targets],
    }
    named = {name: shapes[attribute] for attribute, name in OUTPUTS.items()}
    return named | {SAMPLE: [-1, targets], SAMPLE_MEMBER: [-1]}
