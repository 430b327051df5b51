"""One-step predictions held against what happened.

Shapes: E members, M transitions, D predicted columns.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynlearn.data.transitions import Transitions
from dynlearn.distributions.mixture import Prediction
from dynlearn.errors import NumericalFailure
from dynlearn.models.dynamics import DynamicsModel

_CHUNK = 2_048
# At most of the D × D matrices of a chunk, of which there are some beside one for each member.
_MATRIX_BYTES = 2**28
_OTHER_MATRICES = 6
# Added to correlation matrices: below what networks in float32 resolve, above float64's rounding.
_LEAST_EIGENVALUE = 1e-12


@dataclass(frozen=True)
class OneStep:
    """The real values and how likely a model held them, in float64 on the CPU.

    Attributes:
        real: the predicted columns of the next observations, [M, D].
        mean: the mixture's mean, [M, D].
        std: the mixture's standard deviation, [M, D].
        log_prob: the mixture's log-density of the real values, [M].
        probability: of a smaller value in a column, under Gaussian members, [M, D].
        joint_probability: of the ellipsoid whose surface the real value lies on, under a Gaussian
            with the mixture's mean and covariance, [M].
    """

    real: Tensor
    mean: Tensor
    std: Tensor
    log_prob: Tensor
    probability: Tensor
    joint_probability: Tensor

    def inside(self, level: float) -> NDArray[np.bool_]:
        """Return which values lie inside their column's central interval of a level, [M, D]."""
        inside: NDArray[np.bool_] = ((self.probability - 0.5).abs() <= level / 2).numpy()
        return inside

    def inside_jointly(self, level: float) -> NDArray[np.bool_]:
        """Return which transitions lie inside the ellipsoid of a level, [M]."""
        inside: NDArray[np.bool_] = (self.joint_probability <= level).numpy()
        return inside


def one_step(model: DynamicsModel, transitions: Transitions) -> OneStep:
    """Predict every transition.

    Raises:
        NumericalFailure: a prediction is not finite.
    """
    matrices = 8 * len(model.spec.target_columns) ** 2 * (model.members + _OTHER_MATRICES)
    count = max(1, min(_CHUNK, _MATRIX_BYTES // matrices))
    rows = range(0, len(transitions), count)
    chunks = [_one_step(model, transitions, slice(row, row + count)) for row in rows]
    names = [field.name for field in fields(OneStep)]
    return OneStep(*(torch.cat([getattr(chunk, name) for chunk in chunks]) for name in names))


def _one_step(model: DynamicsModel, transitions: Transitions, rows: slice) -> OneStep:
    answer = model.predict(transitions.observation[rows], transitions.action[rows])
    prediction = Prediction(answer.members.apply(lambda tensor: tensor.cpu().double()))
    targets = list(model.spec.target_columns)
    real = torch.from_numpy(transitions.next_observation[rows][:, targets].astype(np.float64))
    log_prob = prediction.log_prob(real)
    if not log_prob.isfinite().all():
        raise NumericalFailure(
            f"expected a finite NLL, got {float(-log_prob.mean())}; train the model anew"
        )
    return OneStep(
        real=real,
        mean=prediction.mean,
        std=prediction.std,
        log_prob=log_prob,
        probability=_mixture_cdf(prediction, real),
        joint_probability=_ellipsoid_probability(prediction, real),
    )


def _mixture_cdf(prediction: Prediction, value: Tensor) -> Tensor:
    """Return the mixture's probability of a smaller value than each of ``value`` [M, D]."""
    z = (value - prediction.member_means) / prediction.member_variances.sqrt()
    probability: Tensor = torch.special.ndtr(z).mean(0)
    return probability


def _ellipsoid_probability(prediction: Prediction, value: Tensor) -> Tensor:
    """Return the χ² probability of a smaller Mahalanobis distance than of ``value`` [M, D]."""
    std = prediction.std
    correlation = prediction.covariance / (std.unsqueeze(-1) * std.unsqueeze(-2))
    columns = value.shape[1]
    correlation = correlation + _LEAST_EIGENVALUE * torch.eye(columns, dtype=value.dtype)
    z = ((value - prediction.mean) / std).unsqueeze(-1)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(correlation), z, upper=False)
    half_squared_distance = 0.5 * whitened.square().sum((-2, -1))
    half_columns = torch.full_like(half_squared_distance, columns / 2)
    probability: Tensor = torch.special.gammainc(half_columns, half_squared_distance)
    return probability
