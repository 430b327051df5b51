"""Samples of next observations, drawn for all rows and computed a few at a time.

Shapes: N rows, D predicted columns.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dynlearn.config.choices import Propagation
from dynlearn.distributions.mixture import Prediction
from dynlearn.errors import InvalidInput
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.protocol.names import SAMPLE_MEMBER
from dynlearn.protocol.tensors import Array
from dynlearn.rollout.draws import draw_members
from dynlearn_services.server.models.inputs import Inputs


@dataclass(frozen=True)
class Draw:
    """How next observations are sampled.

    Attributes:
        seed: of members and noise.
        propagation: ``ts1`` and ``tsinf`` draw a member for each row and a sample of its
            distribution, ``moment_matching`` a sample of the Gaussian with the mixture's mean and
            covariance; ``expectation`` gives the mean.
    """

    seed: int
    propagation: Propagation


@dataclass(frozen=True)
class Samples:
    """What was drawn for the rows of a request, and the samples as far as they are computed.

    Attributes:
        draw: how.
        chosen: members, integers [N]; None where the propagation draws none.
        noise: [N, D].
        value: [N, D].
    """

    draw: Draw
    chosen: Tensor | None
    noise: Tensor
    value: Array

    @classmethod
    def prepare(cls, model: DynamicsModel, inputs: Inputs, draw: Draw) -> Self:
        """Draw members and noise for all rows: those of `DynamicsModel.sample`."""
        targets = len(model.spec.target_columns)
        among = inputs.members or range(model.members)
        member, noise = draw_members(inputs.rows, among, targets, draw.seed)
        chosen = member if draw.propagation in ("ts1", "tsinf") else None
        if chosen is not None and inputs.member is not None:
            chosen = torch.from_numpy(inputs.member)
        dtype = np.float32 if model.spec.origin is None else np.float64
        return cls(draw, chosen, noise, np.empty((inputs.rows, targets), dtype))

    @property
    def member(self) -> Array:
        """Which members were drawn, integers [N].

        Raises:
            InvalidInput: the propagation draws none.
        """
        if self.chosen is None:
            raise InvalidInput(
                f"outputs: expected no {SAMPLE_MEMBER} with propagation "
                f"{self.draw.propagation}, which draws no members"
            )
        member: Array = self.chosen.numpy()
        return member

    def compute(self, model: DynamicsModel, part: Inputs, rows: slice) -> None:
        """Compute the samples of some rows, whose inputs are given."""
        self.value[rows] = self._of(model, part, rows).cpu().numpy()

    @torch.no_grad()
    def _of(self, model: DynamicsModel, part: Inputs, rows: slice) -> Tensor:
        if self.chosen is not None:
            observation, action = model.check_inputs(part.observation, part.action)
            chosen, noise = (own[rows].to(model.device) for own in (self.chosen, self.noise))
            return model.step(observation, action, chosen, noise)
        prediction = predict(model, part)
        if self.draw.propagation == "expectation":
            return prediction.mean
        noise = self.noise[rows].to(model.device).double().unsqueeze(-1)
        sample: Tensor = prediction.mean + (prediction.scale_tril @ noise).squeeze(-1)
        return sample


def predict(model: DynamicsModel, inputs: Inputs) -> Prediction:
    """Return the mixture of the members that are asked for."""
    prediction = model.predict(inputs.observation, inputs.action, inputs.member)
    if inputs.members is None:
        return prediction
    return Prediction(prediction.members[list(inputs.members)])
