"""EnsembleRegressor: from plain arrays to each member's distribution of the targets.

Shapes: E members, B batch, N samples of a row, I inputs, D targets.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dynlearn.config.choices import Activation, PredictionPrecision
from dynlearn.distributions.mixture import Distribution
from dynlearn.models.heads import Head, HeadKind
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.models.scaling import Scaler

Members = Annotated[int, Field(ge=1, le=256)]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(max_length=32)]
PriorComponents = Annotated[int, Field(ge=0, le=65_536)]


class RegressorSpec(BaseModel):
    """How many numbers go in and come out, and the network between."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: int = Field(ge=1)
    targets: int = Field(ge=1)
    members: Members
    hidden: Widths
    activation: Activation = "relu"
    separate_networks: bool = False
    head: HeadKind = "variance"
    prior_components: PriorComponents = 0


class EnsembleRegressor(nn.Module):
    """An ensemble of networks between the scalers of its inputs and its targets."""

    least_std: Tensor

    def __init__(self, spec: RegressorSpec):
        """Make a regressor whose weights are zero and whose scalers change nothing."""
        super().__init__()
        self.spec = spec
        self.precision: PredictionPrecision = "float32"
        self.input_scaler = Scaler(spec.inputs)
        self.target_scaler = Scaler(spec.targets)
        # What float32 resolves of the values that targets lead to: no answer is surer than that.
        self.register_buffer("least_std", torch.zeros(spec.targets))
        self.network = EnsembleNetwork(
            spec.members,
            spec.inputs,
            spec.hidden,
            Head(spec.head, spec.targets, spec.prior_components),
            spec.activation,
            spec.separate_networks,
        )

    @property
    def members(self) -> int:
        """E."""
        return self.spec.members

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.target_scaler.mean.device

    @property
    def nbytes(self) -> int:
        """The size of the weights and scalers."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def forward(self, inputs: Tensor, base: Tensor | None = None) -> Distribution:
        """Return the members' distributions [E, B, D], in the targets' original units.

        Args:
            inputs: in original units, of each member [E, B, I], or shared by all [B, I].
            base: what the targets are differences from, to be added, [B, D] or [E, B, D].
        """
        shift = self.target_scaler.mean if base is None else self.target_scaler.mean + base
        answer = self._standardised(inputs).affine(self.target_scaler.std, shift)
        return answer.widen(self.least_std)

    def draw(self, inputs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return samples of the members' distributions, in the targets' original units.

        Args:
            inputs: of each member [E, B, I].
            noise: standard normal draws for the N samples of each row [E, B, N, D]; None asks for
                the one mean of each. What float32 does not resolve is not added.

        Returns:
            Values [E, B, N, D].
        """
        answer = self._standardised(inputs).apply(lambda tensor: tensor.unsqueeze(2))
        return self.target_scaler.restore(answer.mean if noise is None else answer.sample(noise))

    def use_bfloat16(self) -> None:
        """Take the products between hidden layers to bfloat16; for prediction."""
        self.precision = "bfloat16"
        self.network.use_bfloat16()

    def subset(self, members: list[int]) -> EnsembleRegressor:
        """Return a copy of some members, in the order given."""
        subset = EnsembleRegressor(self.spec.model_copy(update={"members": len(members)}))
        state = {
            name: tensor[members] if name.startswith("network.") else tensor
            for name, tensor in self.state_dict().items()
        }
        subset.load_state_dict(state)
        return subset.to(self.device)

    def _standardised(self, inputs: Tensor) -> Distribution:
        answer: Distribution = self.network(self.input_scaler.standardise(inputs))
        return answer
