"""From transitions that are already split to a fitted model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from dynlearn.compute import pick_device
from dynlearn.config import TrainConfig
from dynlearn.data.transitions import Transitions
from dynlearn.errors import InvalidInput, describe_fault
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.regressor import EnsembleRegressor, RegressorSpec
from dynlearn.models.reward import LearnedReward
from dynlearn.models.spec import ModelSpec
from dynlearn.objectives import make_objective
from dynlearn.spaces import ActionSpace, ObservationSpace
from dynlearn.training.hooks import Hooks
from dynlearn.training.trainer import Trainer
from dynlearn.training.training_data import Samples, subset

_MOST_VALIDATION = 20_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedModel:
    """A finished training run.

    Attributes:
        model: the members to predict with, each at its best weights.
        history: NLL and RMSE of training and validation at every validation.
        updates: gradient updates made.
        reward: what was learned of the reward, where that was asked for.
    """

    model: DynamicsModel
    history: list[dict[str, float]]
    updates: int
    reward: LearnedReward | None = None


class FittedRegressor(NamedTuple):
    """A regressor of the members to predict with, its history and the updates made."""

    regressor: EnsembleRegressor
    history: list[dict[str, float]]
    updates: int


def model_spec(
    config: TrainConfig, observation_space: ObservationSpace, action_space: ActionSpace
) -> ModelSpec:
    """Return the spec of the model that a configuration asks for.

    Raises:
        InvalidInput: it names columns that are not there.
    """
    every = tuple(range(observation_space.observation.size))
    objective = make_objective(config)
    try:
        return ModelSpec(
            observation_space=observation_space,
            action_space=action_space,
            observation_columns=config.observation_columns or every,
            target_columns=config.target_columns or every,
            absolute_columns=config.absolute_columns,
            members=config.members,
            hidden=config.hidden,
            activation=config.activation,
            separate_networks=config.separate_networks,
            head=objective.head(config.covariance),
            prior_components=objective.components,
        )
    except ValidationError as error:
        raise InvalidInput(
            f"expected a model that can be built, got {describe_fault(error, 'model')}"
        ) from error


def fit(
    config: TrainConfig,
    spec: ModelSpec,
    train: Transitions,
    validation: Transitions,
    hooks: Hooks | None = None,
) -> TrainedModel | None:
    """Fit a model to transitions; None where ``should_stop`` ended it.

    Errors are those of `fit_regressor`.
    """
    training, selection = (dynamics_samples(spec, part) for part in (train, validation))
    return fit_samples(config, spec, training, selection, hooks)


def fit_samples(
    config: TrainConfig,
    spec: ModelSpec,
    training: Samples,
    validation: Samples,
    hooks: Hooks | None = None,
) -> TrainedModel | None:
    """Fit a model to `dynamics_samples`; None where ``should_stop`` ended it.

    Errors are those of `fit_regressor`.
    """
    fitted = fit_regressor(config, spec.regressor, training, validation, hooks)
    if fitted is None:
        return None
    kept = spec.model_copy(update={"members": fitted.regressor.members})
    return TrainedModel(DynamicsModel(kept, fitted.regressor), fitted.history, fitted.updates)


def fit_regressor(
    config: TrainConfig,
    spec: RegressorSpec,
    training: Samples,
    validation: Samples,
    hooks: Hooks | None = None,
) -> FittedRegressor | None:
    """Fit a regressor and keep the elites, best first; None where ``should_stop`` ended it.

    Errors are those of `Trainer`, `Trainer.run` and `Trainer.elites`.
    """
    if len(validation.inputs) > _MOST_VALIDATION:
        logger.info(
            "validation on %d of %d transitions, the same throughout",
            _MOST_VALIDATION,
            len(validation.inputs),
        )
        validation = subset(validation, _MOST_VALIDATION, config.seed)
    regressor = EnsembleRegressor(spec).to(pick_device(config.device))
    trainer = Trainer(config, regressor, training, validation, hooks)
    if not trainer.run():
        return None
    elites = trainer.elites()
    kept = regressor if elites == list(range(spec.members)) else regressor.subset(elites)
    return FittedRegressor(kept.eval(), trainer.history, trainer.update)


def dynamics_samples(spec: ModelSpec, transitions: Transitions) -> Samples:
    """Return what a model's regressor is to learn from transitions, in float64.

    Args:
        spec: of the model.
        transitions: best not too many at a time.
    """
    observation, following = (
        values.astype(np.float64)
        for values in (transitions.observation, transitions.next_observation)
    )
    if spec.origin is not None:
        observation -= spec.origin
        following -= spec.origin
    columns = list(spec.target_columns)
    parts = observation[:, list(spec.observation_columns)], transitions.action
    inputs = np.concatenate(parts, 1, dtype=np.float64)
    # Differences of close values: taken in float64, before anything is rounded to float32. Those
    # that are not finite are refused there.
    with np.errstate(invalid="ignore", over="ignore"):
        base = observation[:, columns] * np.array(spec.is_delta, np.float64)
        return Samples(
            inputs, following[:, columns] - base, np.abs(following[:, columns]).max(0, initial=0)
        )
