"""Columns: from observations and actions to what a regressor is asked, and to where it starts from.

Shapes: O observation, A action, I inputs, D predicted columns, ``...`` any batch dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dynlearn.models.spec import ModelSpec


class Columns:
    """The columns of a spec, on a device."""

    def __init__(self, spec: ModelSpec, device: torch.device):
        """Take them from a spec."""
        self._seen, self._predicted = list(spec.observation_columns), list(spec.target_columns)
        self._sees_all = self._seen == list(range(spec.observation_size))
        self._predicts_all = spec.full_state
        self._delta = torch.tensor(spec.is_delta, dtype=torch.float32, device=device)
        self._low, self._high = (
            torch.tensor(bound, dtype=torch.float32, device=device) for bound in spec.action_bounds
        )
        self._origin = None
        if spec.origin is not None:
            self._origin = torch.tensor(spec.origin, dtype=torch.float64, device=device)

    def inputs(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return what a regressor is asked, [..., I], in float32."""
        if self._origin is not None:
            observation = (observation - self._origin).float()
        if not self._sees_all:
            observation = observation[..., self._seen]
        return torch.cat((observation, action), -1)

    def base(self, observation: Tensor) -> Tensor:
        """Return what the regressor's answer is to be added to, [..., D]."""
        if not self._predicts_all:
            observation = observation[..., self._predicted]
        if self._origin is None:
            return observation * self._delta
        return torch.where(self._delta.bool(), observation, self._origin[self._predicted])

    def bounded(self, actions: Tensor) -> Tensor:
        """Return actions [..., A], clipped to the bounds that the spec names."""
        return actions.clamp(self._low, self._high)
