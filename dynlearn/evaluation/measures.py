"""One-step and open-loop measures on held-out episodes.

Shapes: M transitions, D predicted columns, W windows, H horizon, O observation, L levels.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.transitions import cut_transitions, cut_windows
from dynlearn.errors import InvalidInput
from dynlearn.evaluation.one_step import one_step
from dynlearn.evaluation.open_loop import OpenLoop, open_loop
from dynlearn.evaluation.reward import reward_rmse
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.reward import LearnedReward
from dynlearn.task import Columns

COVERAGE_LEVELS = (0.5, 0.9, 0.95)
CURVE_LEVELS = (*tuple(round(0.05 * k, 2) for k in range(1, 20)), 0.99)
_MAX_WINDOWS = 2_000
# Of the episodes, long enough for the horizon: fewer are hardly like the others.
_FEW_ARE_LONG = 0.5

logger = logging.getLogger(__name__)


class Metrics(BaseModel):
    """What `evaluate` measures, in original units; the content of ``metrics.json``.

    Attributes:
        episodes: held-out episodes.
        transitions: their transitions.
        columns: the names of the predicted columns.
        nll: negative log-density of the mixture, summed over columns, mean over transitions.
        rmse: root mean squared error over transitions and columns.
        rmse_per_column: the same for each column.
        rmse_of_no_change: of predicting the last value of each column.
        nll_of_no_change: of a Gaussian for each column about its last value, with that error for
            its deviation; None in files of before.
        coverage: share of values inside the central interval of each level.
        joint_coverage: share of transitions inside the ellipsoid of each level, all columns at
            once, for a Gaussian with the mixture's mean and covariance; empty where one column is
            predicted.
        open_loop_rmse: error after 1, 2, ..., H steps over the focus columns; empty where the model
            does not predict the full state.
        open_loop_rmse_of_no_change: of predicting the first value.
        open_loop_episodes: how many episodes are of H steps or more; only these the errors are of.
        focus_columns: the columns that the open-loop errors are over.
        reward_rmse: error of the learned reward of the real transitions, where there is one.
        rmse_of_mean_reward: of the same reward for every transition.
    """

    model_config = ConfigDict(frozen=True)

    episodes: int
    transitions: int
    columns: tuple[str, ...]
    nll: float
    rmse: float
    rmse_per_column: dict[str, float]
    rmse_of_no_change: dict[str, float]
    nll_of_no_change: float | None = None
    coverage: dict[str, float]
    joint_coverage: dict[str, float] = {}
    open_loop_rmse: tuple[float, ...] = ()
    open_loop_rmse_of_no_change: tuple[float, ...] = ()
    open_loop_episodes: int | None = None
    focus_columns: tuple[str, ...] = ()
    reward_rmse: float | None = None
    rmse_of_mean_reward: float | None = None

    @property
    def worse_than_no_change(self) -> bool:
        """Whether to predict the last values, with the deviation of that, were likelier right."""
        return self.nll_of_no_change is not None and self.nll > self.nll_of_no_change


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and what the figures are drawn from.

    Attributes:
        metrics: the figures to report.
        calibration: observed share for each of `CURVE_LEVELS`, per column, [L, D].
        joint_calibration: the same of all columns at once, [L].
        rollouts: real and imagined trajectories, where the model predicts the full state.
        one_step: real value, predicted mean and predicted standard deviation along the first
            held-out episode, each [T, D].
    """

    metrics: Metrics
    calibration: NDArray[np.float64]
    joint_calibration: NDArray[np.float64]
    rollouts: OpenLoop | None
    one_step: tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]


def evaluate(
    model: DynamicsModel,
    table: EpisodeTable,
    columns: Columns,
    horizon: int,
    seed: int,
    reward: LearnedReward | None = None,
) -> Evaluation:
    """Measure a model on whole episodes.

    Args:
        model: with its members.
        table: episodes that the model has not seen.
        columns: the observation columns; open-loop errors are over their focus, or over all.
        horizon: steps of the open-loop rollouts; shortened to the longest episode.
        seed: of the rollouts' start steps and particles.
        reward: what was learned beside the model.

    Raises:
        InvalidInput: the episodes have other columns or actions than the model.
        NumericalFailure: a prediction is not finite.
    """
    size = model.spec.observation_size
    if table.observations.shape[1] != size:
        raise InvalidInput(
            f"expected episodes of {size} observation columns, got "
            f"{table.observations.shape[1]}; evaluate on a dataset of the model's environment"
        )
    transitions = cut_transitions(table, model.spec.action_space)
    targets = list(model.spec.target_columns)
    predicted = one_step(model, transitions)
    error = predicted.mean - predicted.real
    last = torch.from_numpy(transitions.observation[:, targets].astype(np.float64))
    names = tuple(columns.labels[column] for column in targets)
    rollouts = long_enough = None
    if model.spec.full_state:
        windows = cut_windows(table, model.spec.action_space, horizon, _MAX_WINDOWS, seed)
        rollouts = open_loop(model, windows, seed)
        steps = windows.actions.shape[1]
        long_enough = int((table.lengths >= steps).sum())
        if long_enough < _FEW_ARE_LONG * len(table.lengths):
            logger.warning(
                "open-loop errors are of %d of %d episodes, those of %d steps or more; "
                "a shorter horizon would see more of them",
                long_enough,
                len(table.lengths),
                steps,
            )
    of_no_change = (last - predicted.real).square().mean(0).sqrt()
    # No surer than the model may be of a column that never changes.
    std = of_no_change.maximum(model.regressor.least_std.cpu().double())
    focus = columns.focus or tuple(range(size))
    first = slice(0, int(transitions.lengths[0]))
    metrics = Metrics(
        episodes=len(table.lengths),
        transitions=len(transitions),
        columns=names,
        nll=float(-predicted.log_prob.mean()),
        rmse=float(error.square().mean().sqrt()),
        rmse_per_column=_by_name(names, error.square().mean(0).sqrt()),
        rmse_of_no_change=_by_name(names, of_no_change),
        nll_of_no_change=float(_gaussian_nll(of_no_change, std)),
        coverage={f"{level:.0%}": _share(predicted.inside(level)) for level in COVERAGE_LEVELS},
        joint_coverage={
            f"{level:.0%}": _share(predicted.inside_jointly(level))
            for level in COVERAGE_LEVELS
            if len(names) > 1
        },
        open_loop_rmse=rollouts.rmse(focus) if rollouts else (),
        open_loop_rmse_of_no_change=rollouts.rmse_of_no_change(focus) if rollouts else (),
        open_loop_episodes=long_enough,
        focus_columns=tuple(columns.labels[column] for column in focus) if rollouts else (),
        reward_rmse=None if reward is None else reward_rmse(reward, table, model.spec.action_space),
        rmse_of_mean_reward=None if reward is None else float(table.rewards.std()),
    )
    return Evaluation(
        metrics=metrics,
        calibration=np.stack([predicted.inside(level).mean(0) for level in CURVE_LEVELS]),
        joint_calibration=np.array(
            [predicted.inside_jointly(level).mean() for level in CURVE_LEVELS]
        ),
        rollouts=rollouts,
        one_step=(
            predicted.real[first].numpy(),
            predicted.mean[first].numpy(),
            predicted.std[first].numpy(),
        ),
    )


def _gaussian_nll(rmse: Tensor, std: Tensor) -> Tensor:
    """Return the mean NLL, summed over columns, of errors of an RMSE under deviations, both [D]."""
    std = std.clamp_min(torch.finfo(torch.float64).tiny)
    return (std.log() + ((rmse / std).square() + math.log(2 * math.pi)) / 2).sum()


def _share(inside: NDArray[np.bool_]) -> float:
    return float(inside.mean())


def _by_name(names: tuple[str, ...], values: Tensor) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
