"""One-step and open-loop measures on held-out episodes.

Shapes: E members, M transitions, D predicted columns, W windows, H horizon, O observation,
L levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dynlearn.episodes import EpisodeTable
from dynlearn.errors import InvalidInput, NumericalFailure
from dynlearn.evaluation.open_loop import OpenLoop, open_loop
from dynlearn.gaussian import Prediction
from dynlearn.model import DynamicsModel
from dynlearn.transitions import Transitions, cut_transitions, cut_windows

COVERAGE_LEVELS = (0.5, 0.9, 0.95)
CURVE_LEVELS = (*tuple(round(0.05 * k, 2) for k in range(1, 20)), 0.99)
_CHUNK = 16_384
_MAX_WINDOWS = 2_000


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
        coverage: share of values inside the central interval of each level.
        open_loop_rmse: error after 1, 2, ..., H steps over the focus columns; empty where the model
            does not predict the full state.
        open_loop_rmse_of_no_change: of predicting the first value.
        focus_columns: the columns that the open-loop errors are over.
    """

    model_config = ConfigDict(frozen=True)

    episodes: int
    transitions: int
    columns: tuple[str, ...]
    nll: float
    rmse: float
    rmse_per_column: dict[str, float]
    rmse_of_no_change: dict[str, float]
    coverage: dict[str, float]
    open_loop_rmse: tuple[float, ...] = ()
    open_loop_rmse_of_no_change: tuple[float, ...] = ()
    focus_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and what the figures are drawn from.

    Attributes:
        metrics: the figures to report.
        calibration: observed share for each of `CURVE_LEVELS`, per column, [L, D].
        rollouts: real and imagined trajectories, where the model predicts the full state.
        one_step: real value, predicted mean and predicted standard deviation along the first
            held-out episode, each [T, D].
    """

    metrics: Metrics
    calibration: NDArray[np.float64]
    rollouts: OpenLoop | None
    one_step: tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]


def evaluate(
    model: DynamicsModel,
    table: EpisodeTable,
    columns: tuple[str, ...],
    focus: tuple[int, ...],
    horizon: int,
    seed: int,
) -> Evaluation:
    """Measure a model on whole episodes.

    Args:
        model: with its members.
        table: episodes that the model has not seen.
        columns: a name for each observation column.
        focus: the observation columns that matter to the task; all where it is empty.
        horizon: steps of the open-loop rollouts; shortened to the longest episode.
        seed: of the rollouts' start steps and particles.

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
    prediction = _predict(model, transitions)
    real = torch.from_numpy(transitions.next_observation[:, targets].astype(np.float64))
    last = torch.from_numpy(transitions.observation[:, targets].astype(np.float64))
    names = tuple(columns[column] for column in targets)
    probability = _mixture_cdf(prediction, real)
    nll = -prediction.log_prob(real).mean()
    if not nll.isfinite():
        raise NumericalFailure(f"expected a finite NLL, got {float(nll)}; train the model anew")
    rollouts = None
    if model.spec.full_state:
        windows = cut_windows(table, model.spec.action_space, horizon, _MAX_WINDOWS, seed)
        rollouts = open_loop(model, windows, seed)
    focus = focus or tuple(range(size))
    first = slice(0, int(transitions.lengths[0]))
    metrics = Metrics(
        episodes=len(table.lengths),
        transitions=len(transitions),
        columns=names,
        nll=float(nll),
        rmse=float((prediction.mean - real).square().mean().sqrt()),
        rmse_per_column=_by_name(names, (prediction.mean - real).square().mean(0).sqrt()),
        rmse_of_no_change=_by_name(names, (last - real).square().mean(0).sqrt()),
        coverage={
            f"{level:.0%}": float(_inside(probability, level).mean()) for level in COVERAGE_LEVELS
        },
        open_loop_rmse=rollouts.rmse(focus) if rollouts else (),
        open_loop_rmse_of_no_change=rollouts.rmse_of_no_change(focus) if rollouts else (),
        focus_columns=tuple(columns[column] for column in focus) if rollouts else (),
    )
    return Evaluation(
        metrics=metrics,
        calibration=np.stack([_inside(probability, level).mean(0) for level in CURVE_LEVELS]),
        rollouts=rollouts,
        one_step=(
            real[first].numpy(),
            prediction.mean[first].numpy(),
            prediction.std[first].numpy(),
        ),
    )


def _predict(model: DynamicsModel, transitions: Transitions) -> Prediction:
    """Return predictions for all transitions, in float64 on the CPU."""
    chunks = [
        model.predict(
            transitions.observation[row : row + _CHUNK], transitions.action[row : row + _CHUNK]
        )
        for row in range(0, len(transitions), _CHUNK)
    ]
    return Prediction(
        torch.cat([chunk.member_means.cpu().double() for chunk in chunks], 1),
        torch.cat([chunk.member_variances.cpu().double() for chunk in chunks], 1),
    )


def _mixture_cdf(prediction: Prediction, value: Tensor) -> Tensor:
    """Return the mixture's probability of a smaller value than each of ``value`` [M, D]."""
    z = (value - prediction.member_means) / prediction.member_variances.sqrt()
    probability: Tensor = torch.special.ndtr(z).mean(0)
    return probability


def _inside(probability: Tensor, level: float) -> NDArray[np.bool_]:
    """Return which values lie inside the central interval of a level, [M, D]."""
    inside: NDArray[np.bool_] = ((probability - 0.5).abs() <= level / 2).numpy()
    return inside


def _by_name(names: tuple[str, ...], values: Tensor) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))
