"""LearnedReward: what a transition is worth, learned from data where no task says it.

It is a model like that of the dynamics, with one member, of a column that is the reward; what goes
in is the transition, and the goal where the environment has goals. So it can be sharp where a
reward is, at a threshold that two observations lie on either side of.

Shapes: ``...`` any batch dimensions, O observation, A action, G context, M transitions.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.config.choices import Activation
from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.transitions import Transitions, before_each_step, cut_transitions
from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.spaces import ActionSpace, BoxSpace, ObservationSpace

_FOLDER = "reward"
_CHUNK = 8_192
# What a reward's fit has in common with that of the dynamics.
_SHARED = {
    "dataset",
    "model",
    "hidden",
    "activation",
    "initialization",
    "learning_rate",
    "schedule",
    "batch_size",
    "precision",
    "max_updates",
    "validate_every",
    "patience",
    "validation_share",
    "test_share",
    "checkpoint_every",
    "device",
    "seed",
}


class LearnedReward:
    """A reward function ``(observation, action, next_observation, context)`` that was learned.

    The context is the goal, and has no columns where the environment has none.
    """

    def __init__(self, model: DynamicsModel, observation_size: int):
        """Take a model of `reward_spec` for observations of so many columns."""
        self._model = model
        self._observation_size = observation_size

    @property
    def context_size(self) -> int:
        """G."""
        return self._model.spec.observation_size - 2 * self._observation_size - 1

    @property
    def nbytes(self) -> int:
        """The size of the weights."""
        return sum(tensor.nbytes for tensor in self._model.state_dict().values())

    def __call__(
        self, observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor
    ) -> Tensor:
        """Return the rewards [...] of transitions.

        Raises:
            InvalidInput: the context has other columns than the goal.
        """
        if context.shape[-1] != self.context_size:
            raise InvalidInput(
                f"context: expected the goal, of {self.context_size} columns, got "
                f"{context.shape[-1]}"
            )
        unknown = observation.new_zeros(*observation.shape[:-1], 1)
        seen = torch.cat((observation, next_observation, context, unknown), -1)
        rows, actions = (part.reshape(-1, part.shape[-1]) for part in (seen, action))
        return self._model.step(rows, actions, None, None).view(seen.shape[:-1])

    def deviations(self, context: NDArray[np.floating]) -> float:
        """Return how many standard deviations from the data a context [M, G] lies at most."""
        first = 2 * self._observation_size
        columns = slice(first, first + self.context_size)
        scaler = self._model.input_scaler
        mean, std = (part[columns].cpu().numpy() for part in (scaler.mean, scaler.std))
        with np.errstate(over="ignore"):
            return float(np.abs((context - mean) / std).max(initial=0))

    def rmse(self, table: EpisodeTable, action_space: ActionSpace) -> float:
        """Return the root mean squared error over all transitions of episodes.

        Raises:
            InvalidInput: the episodes have other columns, goals or actions.
        """
        transitions = judged_transitions(table, action_space)
        expected, got = self._model.spec.observation_size, transitions.observation.shape[1]
        if got != expected:
            raise InvalidInput(
                f"expected episodes with goals of {self.context_size} columns, as the reward was "
                f"learned on, got goals of {got - expected + self.context_size}"
            )
        squared = 0.0
        for first in range(0, len(transitions), _CHUNK):
            rows = slice(first, first + _CHUNK)
            found = self._model.predict(transitions.observation[rows], transitions.action[rows])
            error = found.mean[:, 0].cpu().double().numpy() - table.rewards[rows]
            squared += float(np.square(error).sum())
        return math.sqrt(squared / len(transitions))

    def save(self, folder: Path) -> None:
        """Write it beside the dynamics model in a folder."""
        (folder / _FOLDER).mkdir()
        self._model.save(folder / _FOLDER)

    @classmethod
    def load(cls, folder: Path, dynamics: DynamicsModel) -> LearnedReward | None:
        """Read what lies beside a dynamics model; None where it has no learned reward.

        Raises:
            NotFound: one of its files is missing.
            CorruptData: a file is truncated, not finite, or does not fit the dynamics.
        """
        if not (folder / _FOLDER).exists():
            return None
        model = DynamicsModel.load(folder / _FOLDER, dynamics.device, dynamics.precision)
        spec, goal = dynamics.spec, dynamics.spec.observation_space.goal
        columns = 2 * spec.observation_size + (goal.size if goal else 0) + 1
        expected = _spec(columns, spec.action_space, model.spec.hidden, model.spec.activation)
        if not spec.full_state or model.spec != expected:
            raise CorruptData(
                f"expected the reward of the dynamics in {folder}, got another model in "
                f"{folder / _FOLDER}; publish the model anew"
            )
        return cls(model, spec.observation_size)


def reward_config(config: TrainConfig) -> TrainConfig:
    """Return how the reward beside a dynamics model is fitted: least squares, on all data."""
    return TrainConfig(
        **config.model_dump(include=_SHARED),
        objective="mse",
        members=1,
        bootstrap=False,
        select_by="rmse",
    )


def reward_spec(config: TrainConfig, columns: int, action_space: ActionSpace) -> ModelSpec:
    """Return the spec of a reward.

    Args:
        config: of `reward_config`.
        columns: of `judged_transitions`.
        action_space: of the actions.
    """
    return _spec(columns, action_space, config.hidden, config.activation)


def _spec(
    columns: int, action_space: ActionSpace, hidden: tuple[int, ...], activation: Activation
) -> ModelSpec:
    seen, reward = tuple(range(columns - 1)), (columns - 1,)
    every = BoxSpace(low=(-math.inf,) * columns, high=(math.inf,) * columns)
    return ModelSpec(
        observation_space=ObservationSpace(observation=every),
        action_space=action_space,
        observation_columns=seen,
        target_columns=reward,
        absolute_columns=reward,
        members=1,
        hidden=hidden,
        activation=activation,
        head="mean",
    )


def judged_transitions(table: EpisodeTable, action_space: ActionSpace) -> Transitions:
    """Return transitions from (observation, next observation, goal, 0) to (the same, reward).

    The observations have 2·O + G + 1 columns.

    Raises:
        InvalidInput: the actions are not of the space.
        CorruptData: a value is not finite.
    """
    moves = cut_transitions(table, action_space)
    parts = [moves.observation, moves.next_observation]
    if table.desired_goals is not None:
        parts.append(table.desired_goals[before_each_step(table.lengths)])
    rewards = table.rewards[:, None]
    return Transitions(
        np.concatenate((*parts, np.zeros_like(rewards)), 1),
        moves.action,
        np.concatenate((*parts, rewards), 1),
        moves.lengths,
    )
