"""Group: what a trainer asks of members that are updated together, wherever they train.

Shapes: E members of the group, D targets.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.training.training_data import TrainingData


class GroupMeasures(NamedTuple):
    """How each member of a group does, standardised.

    Attributes:
        nll: in validation, [E].
        squared_error: in validation, of each dimension, [E, D].
        train_nll: mean over some updates since the last validation, [E].
        train_squared_error: likewise, [E, D].
    """

    nll: Tensor
    squared_error: Tensor
    train_nll: Tensor
    train_squared_error: Tensor


class Group(Protocol):
    """What a trainer does with a group of members, wherever they train."""

    def advance(self, updates: int) -> None:
        """Make gradient updates of every member, each on its own next minibatch."""

    def validate(self) -> GroupMeasures:
        """Measure the members and bring their weights up to date in the network given at first."""

    def state(self) -> dict[str, Tensor]:
        """Return all that `load` needs; the members come first in every tensor."""

    def load(self, state: Mapping[str, Tensor], update: int) -> None:
        """Go on from the `state` after so many updates."""


GroupFactory = Callable[[TrainConfig, EnsembleNetwork, TrainingData, int], Group]
