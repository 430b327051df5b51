"""LearnedReward: what a transition is worth, learned from data where no task says it.

It is a regressor of one member. What goes in is the whole transition, and the goal where the
environment has goals, so that it can be sharp where a reward is: at a threshold that two
observations lie on either side of.

Shapes: ``...`` any batch dimensions, O observation, A action, G context, M transitions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError, model_validator
from torch import Tensor

from dynlearn.config.choices import Activation
from dynlearn.errors import CorruptData, InvalidInput, describe_fault
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.files import SPEC_FILE, read_regressor, write_model
from dynlearn.models.regressor import EnsembleRegressor, RegressorSpec
from dynlearn.models.spec import ModelSpec
from dynlearn.storage.files import read_json

_FOLDER = "reward"


class LearnedReward:
    """A reward function ``(observation, action, next_observation, context)`` that was learned.

    The context is the goal, and has no columns where the environment has none.
    """

    def __init__(
        self,
        regressor: EnsembleRegressor,
        observation_size: int,
        action_size: int,
        origin: tuple[float, ...] | None = None,
    ):
        """Take a regressor of `reward_spec` for O observation and A action columns.

        Args:
            regressor: of the reward.
            observation_size: O.
            action_size: A.
            origin: of the dynamics, which is taken off observations here too.
        """
        self.regressor = regressor
        self._observation_size = observation_size
        self._action_size = action_size
        self.origin = origin
        self._origin = None
        if origin is not None:
            device = regressor.device
            self._origin = torch.tensor(origin, dtype=torch.float64, device=device)

    @property
    def context_size(self) -> int:
        """G."""
        return self.regressor.spec.inputs - 2 * self._observation_size - self._action_size

    @property
    def nbytes(self) -> int:
        """The size of the weights."""
        return self.regressor.nbytes

    @torch.no_grad()
    def __call__(
        self, observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor
    ) -> Tensor:
        """Return the rewards [...] of transitions.

        Raises:
            InvalidInput: the context has other columns than the goal.
        """
        if self._origin is not None:
            observation, next_observation = (
                (part - self._origin).float() for part in (observation, next_observation)
            )
        if context.shape[-1] != self.context_size:
            raise InvalidInput(
                f"context: expected the goal, of {self.context_size} columns, got "
                f"{context.shape[-1]}"
            )
        judged = torch.cat((observation, next_observation, context, action), -1)
        rows = judged.reshape(1, -1, judged.shape[-1])
        return self.regressor.draw(rows).view(judged.shape[:-1])

    def deviations(self, context: NDArray[np.floating]) -> float:
        """Return how many standard deviations from the data a context [M, G] lies at most."""
        first = 2 * self._observation_size
        columns = slice(first, first + self.context_size)
        scaler = self.regressor.input_scaler
        mean, std = (part[columns].cpu().numpy() for part in (scaler.mean, scaler.std))
        with np.errstate(over="ignore"):
            return float(np.abs((context - mean) / std).max(initial=0))

    def save(self, folder: str | Path) -> None:
        """Write it beside the dynamics model in a folder."""
        own = Path(folder) / _FOLDER
        own.mkdir()
        write_model(own, self.regressor.spec, self.regressor)

    @classmethod
    def load(cls, folder: str | Path, dynamics: DynamicsModel) -> LearnedReward | None:
        """Read what lies beside a dynamics model; None where it has no learned reward.

        Raises:
            NotFound: one of its files is missing.
            CorruptData: a file is truncated, not finite, or does not fit the dynamics.
        """
        own = Path(folder) / _FOLDER
        if not own.exists():
            return None
        spec = RegressorSpec(**dict(read_json(own / SPEC_FILE, PublishedReward)))
        seen, goal = dynamics.spec, dynamics.spec.observation_space.goal
        inputs = 2 * seen.observation_size + (goal.size if goal else 0) + seen.action_size
        if not seen.full_state or spec != reward_spec(inputs, spec.hidden, spec.activation):
            raise CorruptData(
                f"expected the reward of the dynamics in {folder}, got another model in {own}; "
                "publish the model anew"
            )
        regressor = read_regressor(own, spec, dynamics.device, dynamics.precision)
        return cls(regressor, seen.observation_size, seen.action_size, seen.origin)


def reward_spec(inputs: int, hidden: tuple[int, ...], activation: Activation) -> RegressorSpec:
    """Return the spec of a reward from 2·O + G + A inputs."""
    return RegressorSpec(
        inputs=inputs, targets=1, members=1, hidden=hidden, activation=activation, head="mean"
    )


class PublishedReward(RegressorSpec):
    """What is published of a reward: its spec, or before there were regressors, dynamics.

    Those were of 2·O + G + 1 columns of which the last was the reward, unknown before the step.
    """

    @model_validator(mode="before")
    @classmethod
    def _of_dynamics(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "observation_space" not in content:
            return content
        try:
            spec = ModelSpec.model_validate(content)
        except ValidationError as error:
            raise ValueError(describe_fault(error, "file")) from error
        reward = (spec.observation_size - 1,)
        if not spec.target_columns == spec.absolute_columns == reward:
            raise ValueError(
                f"expected the last column, {reward[0]}, as the one target, got columns "
                f"{list(spec.target_columns)}"
            )
        return spec.regressor.model_dump()
