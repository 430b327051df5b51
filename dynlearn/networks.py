"""The ensemble's network: E multilayer perceptrons evaluated together, one product a layer.

Shapes: E members, B batch, I inputs, D targets.
"""

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dynlearn.gaussian import DiagonalGaussian

Activation = Literal["relu", "tanh", "silu"]
Initialization = Literal["xavier_uniform", "lecun_uniform"]

_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "silu": torch.nn.functional.silu}

MIN_VARIANCE = 1e-8
MAX_VARIANCE = 100.0
# The inverse softplus of 1 - MIN_VARIANCE: a raw output of zero means unit variance.
_SOFTPLUS_OFFSET = math.log(math.expm1(1 - MIN_VARIANCE))


def standardised_variance(raw: Tensor) -> Tensor:
    """Return the variance that a head's ``raw`` output stands for, in standardised units.

    Softplus, offset so that zero gives one, kept between 1e-8 and 100
    (β-NLL, Seitzer et al. 2022, appendix on the network's output).
    """
    return (softplus(raw + _SOFTPLUS_OFFSET) + MIN_VARIANCE).clamp(MIN_VARIANCE, MAX_VARIANCE)


class EnsembleLinear(nn.Module):
    """E affine maps of I inputs to D outputs; weights are [E, I, D], biases [E, 1, D]."""

    def __init__(self, members: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def initialize(self, kind: Initialization, generator: torch.Generator, blocks: int = 1) -> None:
        """Draw new weights and clear the biases.

        Args:
            kind: Glorot's uniform, or LeCun's uniform ±√(3 / inputs).
            generator: the source of the draws, on the CPU.
            blocks: how many equal maps stand side by side in the outputs, each with its own fan.
        """
        _, inputs, outputs = self.weight.shape
        fan = (inputs + outputs / blocks) / 2 if kind == "xavier_uniform" else inputs
        bound = math.sqrt(3 / fan)
        draws = torch.rand(self.weight.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            self.weight.copy_((2 * draws - 1) * bound)
            self.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [E, B, I] to [E, B, D]."""
        return torch.baddbmm(self.bias, inputs, self.weight)


class EnsembleNetwork(nn.Module):
    """E networks from standardised inputs to Gaussians over standardised targets.

    With ``learned_variance`` the last layer gives mean and variance from one shared trunk; without
    it the variance of each member and target is the constant ``residual_variance`` [E, 1, D].
    """

    residual_variance: Tensor

    def __init__(
        self,
        members: int,
        inputs: int,
        hidden: tuple[int, ...],
        targets: int,
        activation: Activation = "relu",
        learned_variance: bool = True,
    ):
        super().__init__()
        self.members = members
        self.learned_variance = learned_variance
        self._activate = _ACTIVATIONS[activation]
        widths = (inputs, *hidden)
        self.trunk = nn.ModuleList(EnsembleLinear(members, a, b) for a, b in pairwise(widths))
        self.head = EnsembleLinear(members, widths[-1], targets * (1 + learned_variance))
        self.register_buffer("residual_variance", torch.ones(members, 1, targets))

    def initialize(self, kind: Initialization, generator: torch.Generator) -> None:
        """Draw new weights for every layer and clear the biases."""
        *trunk, head = (layer for layer in self.modules() if isinstance(layer, EnsembleLinear))
        for layer in trunk:
            layer.initialize(kind, generator)
        head.initialize(kind, generator, blocks=1 + self.learned_variance)

    def forward(self, inputs: Tensor) -> DiagonalGaussian:
        """Map inputs [E, B, I], or [B, I] shared by all members, to Gaussians [E, B, D]."""
        features = inputs if inputs.dim() == 3 else inputs.expand(self.members, *inputs.shape)
        for layer in self.trunk:
            features = self._activate(layer(features))
        outputs = self.head(features)
        if not self.learned_variance:
            return DiagonalGaussian(outputs, self.residual_variance.expand_as(outputs))
        mean, raw = outputs.chunk(2, dim=-1)
        return DiagonalGaussian(mean, standardised_variance(raw))
