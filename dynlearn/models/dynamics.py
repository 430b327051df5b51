"""DynamicsModel: from an observation and an action to the next observation's distribution.

Shapes: E members, B batch, W rows of each member, O observation, A action, D predicted columns,
S start states, P candidates, H horizon, N particles or successors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynlearn.config.choices import PredictionPrecision, Propagation
from dynlearn.distributions.mixture import Distribution, Prediction
from dynlearn.errors import InvalidInput
from dynlearn.models import inputs
from dynlearn.models.columns import Columns
from dynlearn.models.files import SPEC_FILE, read_regressor, write_model
from dynlearn.models.groups import MemberGroups
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.spec import ModelSpec
from dynlearn.numbers import check_integer
from dynlearn.rollout.draws import draw_members
from dynlearn.rollout.trajectory import Trajectory, rollout
from dynlearn.storage.files import read_json


class DynamicsModel:
    """A regressor of what some columns of the observation become, or of how they change.

    `predict` gives the distribution of the predicted columns of the next observation, in original
    units; `sample` draws from it; `rollout` imagines trajectories.
    """

    def __init__(self, spec: ModelSpec, regressor: EnsembleRegressor | None = None):
        """Take a regressor of the spec; without one, take one whose weights are zero."""
        self.spec = spec
        self.regressor = EnsembleRegressor(spec.regressor) if regressor is None else regressor
        self.columns = Columns(spec, self.device)

    @property
    def members(self) -> int:
        """E, the number of members that predict."""
        return self.spec.members

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.regressor.device

    @property
    def observation_dtype(self) -> torch.dtype:
        """Of observations: float64 where the spec has an origin."""
        return torch.float32 if self.spec.origin is None else torch.float64

    @property
    def precision(self) -> PredictionPrecision:
        """Of the products between hidden layers."""
        return self.regressor.precision

    @torch.no_grad()
    def predict(self, observation: Any, action: Any, member: Any = None) -> Prediction:
        """Predict the next observation's distribution.

        Args:
            observation: [B, O], an array or a tensor.
            action: [B, A], or integers [B] where actions are discrete. Actions outside the bounds
                that the spec names are clipped to them.
            member: which member alone answers each row, integers [B]; all answer where it is None.
                The prediction then is of one member, at a fraction of the work.

        Raises:
            InvalidInput: a shape is wrong, or there is no such member.
        """
        observation, action = self.check_inputs(observation, action)
        if member is None:
            return Prediction(self._answer(observation, action))
        member = inputs.check_member(member, len(observation), self.members, self.device)
        groups = MemberGroups(member, self.members)
        grouped = self._answer(groups.gather(observation), groups.gather(action))
        return Prediction(grouped.apply(groups.scatter)[None])

    def sample(self, observation: Any, action: Any, seed: int) -> tuple[Tensor, Tensor]:
        """Draw one next observation a row, each from a member drawn at random.

        Returns:
            The values of the predicted columns [B, D] and the members' indices [B].
        """
        observation, action = self.check_inputs(observation, action)
        columns = len(self.spec.target_columns)
        member, noise = draw_members(len(observation), range(self.members), columns, seed)
        drawn = self.step(observation, action, member.to(self.device), noise.to(self.device))
        return drawn, member

    @torch.no_grad()
    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Return one successor a row by `step_groups`, without checks.

        Args:
            observation: [B, O].
            action: [B, A], one-hot where actions are discrete.
            member: which member answers each row [B]; None asks for the mixture's mean.
            noise: standard normal draws [B, D] that turn the member's Gaussian into a sample; None
                asks for its mean.

        Returns:
            The values of the predicted columns [B, D].
        """
        if member is None:
            every = (part.expand(self.members, *part.shape) for part in (observation, action))
            return self.step_groups(*every).mean(0).squeeze(1)
        groups = MemberGroups(member, self.members)
        drawn = None if noise is None else groups.gather(noise).unsqueeze(2)
        following = self.step_groups(groups.gather(observation), groups.gather(action), drawn)
        return groups.scatter(following).squeeze(1)

    @torch.no_grad()
    def step_groups(
        self, observation: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Return some successors of each row, for rows sorted by member and equally many of each.

        Args:
            observation: [E, W, O].
            action: [E, W, A], one-hot where actions are discrete.
            noise: standard normal draws for the N successors of each row [E, W, N, D]; None asks
                for the one mean of each.

        Returns:
            The values of the predicted columns [E, W, N, D].
        """
        change = self.regressor.draw(self.columns.inputs(observation, action), noise)
        return change + self.columns.base(observation).unsqueeze(2)

    def rollout(
        self,
        observation: Any,
        actions: Any,
        particles: int = 20,
        propagation: Propagation = "tsinf",
        seed: int = 0,
    ) -> Trajectory:
        """Imagine what each action sequence leads to.

        Args:
            observation: start states [S, O].
            actions: [S, P, H, A], or integers [S, P, H] where actions are discrete; clipped as
                by `predict`.
            particles: N, trajectories for each sequence (one suffices for ``expectation``).
            propagation: ``ts1`` draws a member at each step, ``tsinf`` one for the whole
                trajectory; ``moment_matching`` is ``ts1`` with particles redrawn at each step from
                the Gaussian of their moments; ``expectation`` follows the mixture's mean.
            seed: of the members and the noise.

        Raises:
            InvalidInput: a shape is wrong, or the model does not predict the full state.
        """
        self.spec.require_full_state()
        observation = self.as_observation(observation)
        actions = self.as_tensor(inputs.encode_actions(self.spec.action_space, actions, 3))
        inputs.check_columns(self.spec, observation, actions)
        return rollout(self, observation, actions, particles, propagation, seed)

    def save(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into an existing folder."""
        write_model(Path(folder), self.spec, self.regressor)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        precision: PredictionPrecision = "float32",
    ) -> DynamicsModel:
        """Read a model from its folder, such as ``models/slide/3``.

        Args:
            folder: as `save` has written it.
            device: where to predict.
            precision: of the products between hidden layers. bfloat16 is rougher, and faster where
                the processor has units for it; tensors that go in and come out are float32.

        Raises:
            NotFound: there is no model.
            CorruptData: a file is truncated, not finite, or does not fit the spec.
        """
        folder = Path(folder)
        spec = read_json(folder / SPEC_FILE, ModelSpec)
        return cls(spec, read_regressor(folder, spec.regressor, device, precision))

    def subset(self, members: list[int]) -> DynamicsModel:
        """Return a copy of some members, such as the elites, in the order given.

        Raises:
            InvalidInput: there are none, or there is no such member.
        """
        members = [check_integer("members", one, 0, self.members - 1) for one in members]
        if not members:
            raise InvalidInput("members: expected at least one, got none")
        spec = self.spec.model_copy(update={"members": len(members)})
        return DynamicsModel(spec, self.regressor.subset(members))

    def check_inputs(self, observation: Any, action: Any) -> tuple[Tensor, Tensor]:
        """Return both as tensors on the model's device, actions encoded and within their bounds.

        Raises:
            InvalidInput: a shape is wrong.
        """
        observation, action = inputs.check_rows(self.spec, observation, action, self.device)
        return observation, self.bounded(action)

    def bounded(self, actions: Tensor) -> Tensor:
        """Return actions [..., A], clipped to the bounds that the spec names."""
        return self.columns.bounded(actions)

    def as_observation(self, values: Any) -> Tensor:
        """Return observations on the model's device, in float64 where the spec has an origin.

        Raises:
            InvalidInput: the values are not numbers, or rows differ in length.
        """
        return inputs.as_observation(self.spec, values, self.device)

    def as_tensor(self, values: Any) -> Tensor:
        """Return an array or a tensor in float32 on the model's device.

        Raises:
            InvalidInput: the values are not numbers, or rows differ in length.
        """
        return inputs.as_tensor(values, self.device)

    def _answer(self, observation: Tensor, action: Tensor) -> Distribution:
        """Return the members' distributions, [E, B, D]."""
        answer: Distribution = self.regressor(
            self.columns.inputs(observation, action), self.columns.base(observation)
        )
        return answer
