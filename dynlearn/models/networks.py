"""The ensemble's network: E multilayer perceptrons evaluated together, one product a layer.

Shapes: E members, B batch, I inputs, D targets.
"""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from dynlearn.config.choices import Activation, Initialization
from dynlearn.distributions.gaussian import DiagonalGaussian
from dynlearn.distributions.mixture import Distribution
from dynlearn.models.affine import members_affine, onednn_is_faster
from dynlearn.models.heads import Head

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "silu": silu,
}
# Over their own input: for where no gradient will need it.
_ACTIVATIONS_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "silu": partial(silu, inplace=True),
}


# Of each member, in float32: so few that a layer's activations are still in the cache when the next
# needs them.
_ROWS_NEAR_THE_CORE = 176


class EnsembleLinear(nn.Module):
    """E affine maps of I inputs to D outputs; weights are [E, I, D], biases [E, 1, D].

    The outputs may be several maps side by side, of the widths that ``blocks`` gives.
    """

    def __init__(self, members: int, inputs: int, blocks: Sequence[int]):
        super().__init__()
        self.blocks = tuple(blocks)
        self.weight = nn.Parameter(torch.zeros(members, inputs, sum(blocks)))
        self.bias = nn.Parameter(torch.zeros(members, 1, sum(blocks)))
        self._with_onednn = onednn_is_faster()

    def initialize(self, kind: Initialization, generators: Sequence[torch.Generator]) -> None:
        """Draw new weights and clear the biases.

        Args:
            kind: Glorot's uniform, or LeCun's uniform ±√(3 / inputs), for each block alone.
            generators: the source of each member's draws, on the CPU.
        """
        _, inputs, outputs = self.weight.shape
        fans = [(inputs + n) / 2 if kind == "xavier_uniform" else inputs for n in self.blocks]
        bound = torch.tensor([math.sqrt(3 / fan) for fan in fans], dtype=torch.float64)
        bound = bound.repeat_interleave(torch.tensor(self.blocks))
        with torch.no_grad():
            for weight, generator in zip(self.weight, generators, strict=True):
                draws = torch.rand(inputs, outputs, generator=generator, dtype=torch.float64)
                weight.copy_((2 * draws - 1) * bound)
            self.bias.zero_()

    def forward(self, inputs: Tensor, out: Tensor | None = None) -> Tensor:
        """Map [E, B, I] to [E, B, D], in ``out`` if that is given and suits."""
        return members_affine(self.bias, inputs, self.weight, self._with_onednn, out)


class EnsemblePerceptron(nn.Sequential):
    """E multilayer perceptrons; the last layer has the blocks of a head."""

    def __init__(
        self,
        members: int,
        inputs: int,
        hidden: Sequence[int],
        blocks: Sequence[int],
        activation: Activation,
    ):
        widths = (inputs, *hidden)
        layers = [EnsembleLinear(members, a, [b]) for a, b in pairwise(widths)]
        super().__init__(*layers, EnsembleLinear(members, widths[-1], blocks))
        self._activation = activation
        self._rows_at_once = _ROWS_NEAR_THE_CORE

    def use_bfloat16(self) -> None:
        """Round the weights between hidden layers to bfloat16 and multiply in it; for prediction.

        The first and the last layer stay as they are: they have few of the products, and rounding
        in them costs the most accuracy.
        """
        for layer in tuple(self.children())[1:-1]:
            layer.to(torch.bfloat16)
        self._rows_at_once = 2 * _ROWS_NEAR_THE_CORE

    def forward(self, features: Tensor) -> Tensor:
        """Map inputs [E, B, I] to outputs [E, B, sum of blocks]."""
        if torch.is_grad_enabled():
            return self._map(features, _ACTIVATIONS[self._activation])
        activate = _ACTIVATIONS_IN_PLACE[self._activation]
        if features.device.type != "cpu" or features.shape[1] <= self._rows_at_once:
            return self._map(features, activate)
        return self._map_in_pieces(features, activate)

    def _map(self, features: Tensor, activate: Callable[[Tensor], Tensor]) -> Tensor:
        *hidden, last = self
        for layer in hidden:
            features = activate(layer(features))
        return cast(Tensor, last(features))

    def _map_in_pieces(self, features: Tensor, activate: Callable[[Tensor], Tensor]) -> Tensor:
        """Map a few rows at a time, over and over in the same two places in memory."""
        *hidden, last = (cast(EnsembleLinear, layer) for layer in self)
        members, rows, _ = features.shape
        most = -(-rows // -(-rows // self._rows_at_once))
        widest = max((layer.weight.shape[2] for layer in hidden), default=0)
        places = features.new_empty(2, members * most * widest)
        mapped = features.new_empty(members, rows, last.weight.shape[2])
        for first in range(0, rows, most):
            piece = features[:, first : first + most]
            for index, layer in enumerate(hidden):
                shape = members, piece.shape[1], layer.weight.shape[2]
                place = places[index % 2, : math.prod(shape)].view(shape)
                piece = activate(layer(piece, place))
            mapped[:, first : first + most] = last(piece)
        return mapped


class EnsembleNetwork(nn.Module):
    """E networks from standardised inputs to distributions over standardised targets.

    Mean and scale come from one trunk, or from two networks of their own where ``separate``. With
    a head of kind ``mean``, each member and target has the constant ``residual_variance``
    [E, 1, D].
    """

    residual_variance: Tensor

    def __init__(
        self,
        members: int,
        inputs: int,
        hidden: Sequence[int],
        head: Head,
        activation: Activation = "relu",
        separate: bool = False,
    ):
        super().__init__()
        self.members = members
        self.head = head
        mean, *scale = head.blocks
        parts = [[mean], scale] if separate and scale else [head.blocks]
        self.perceptrons = nn.ModuleList(
            EnsemblePerceptron(members, inputs, hidden, blocks, activation) for blocks in parts
        )
        self.register_buffer("residual_variance", torch.ones(members, 1, head.targets))

    def initialize(self, kind: Initialization, generators: Sequence[torch.Generator]) -> None:
        """Draw new weights for every layer, each member's from its own generator."""
        for layer in self.modules():
            if isinstance(layer, EnsembleLinear):
                layer.initialize(kind, generators)

    def use_bfloat16(self) -> None:
        """Take the hidden layers' products to bfloat16; for prediction."""
        for perceptron in self.perceptrons:
            cast(EnsemblePerceptron, perceptron).use_bfloat16()

    def forward(self, inputs: Tensor) -> Distribution:
        """Map inputs [E, B, I], or [B, I] shared by all members, to distributions [E, B, D]."""
        if inputs.dim() == 2:
            inputs = inputs.expand(self.members, *inputs.shape)
        return self.distribution(self.outputs(inputs))

    def outputs(self, inputs: Tensor) -> Tensor:
        """Map inputs [E, B, I] to the head's raw outputs, the mean first."""
        first, *others = [perceptron(inputs) for perceptron in self.perceptrons]
        return torch.cat((first, *others), -1) if others else first

    def distribution(self, outputs: Tensor) -> Distribution:
        """Return what raw outputs stand for."""
        d = self.head.targets
        mean, raw = torch.split(outputs, [d, outputs.shape[-1] - d], -1)
        if self.head.kind == "mean":
            return DiagonalGaussian(mean, self.residual_variance.expand_as(mean))
        return self.head.distribution(mean, raw)


def view_members(network: EnsembleNetwork, members: slice) -> EnsembleNetwork:
    """Return a network of some members, which shares its weights with the whole one."""
    view = copy.deepcopy(network)
    view.members = len(range(*members.indices(network.members)))
    parts = zip(
        (*view.parameters(), *view.buffers()),
        (*network.parameters(), *network.buffers()),
        strict=True,
    )
    for part, whole in parts:
        part.data = whole.data[members]
    return view
