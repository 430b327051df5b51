"""Open-loop rollouts against what really happened: start once, then trust the model.

Shapes: W windows, N particles, H horizon, O observation, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynlearn.data.transitions import Windows
from dynlearn.errors import NumericalFailure
from dynlearn.models.dynamics import DynamicsModel

_PARTICLES = 20
_CHUNK = 256


@dataclass(frozen=True)
class OpenLoop:
    """Real trajectories and what the model imagined under the same actions.

    Attributes:
        start: [W, O].
        real: [W, H, O].
        mean: the particles' mean, [W, H, O].
        low: the particles' 5% quantile, [W, H, O].
        high: the particles' 95% quantile, [W, H, O].
    """

    start: NDArray[np.floating]
    real: NDArray[np.floating]
    mean: NDArray[np.floating]
    low: NDArray[np.floating]
    high: NDArray[np.floating]

    def rmse(self, columns: tuple[int, ...]) -> tuple[float, ...]:
        """Return the error of the mean over some columns after each step, H values."""
        return _rmse(self.mean - self.real, columns)

    def rmse_of_no_change(self, columns: tuple[int, ...]) -> tuple[float, ...]:
        """Return the same error of predicting that nothing moves."""
        return _rmse(self.start[:, None] - self.real, columns)


def open_loop(model: DynamicsModel, windows: Windows, seed: int) -> OpenLoop:
    """Imagine each window from its start under its real actions, with ``tsinf`` particles.

    Raises:
        NumericalFailure: an imagined value is not finite.
    """
    means, lows, highs = [], [], []
    for row in range(0, len(windows.start), _CHUNK):
        chunk = slice(row, row + _CHUNK)
        trajectory = model.rollout(
            windows.start[chunk], windows.actions[chunk, None], _PARTICLES, "tsinf", seed
        )
        particles = trajectory.particles[:, 0].cpu().numpy()
        if not np.isfinite(particles).all():
            raise NumericalFailure(
                f"expected finite rollouts of {particles.shape[2]} steps, got NaN or infinity; "
                "shorten the horizon or train the model anew"
            )
        # Of so few particles, Weibull's quantiles are those that hold 90% of new values.
        low, high = np.quantile(particles, [0.05, 0.95], axis=1, method="weibull")
        means.append(particles.mean(1))
        lows.append(low)
        highs.append(high)
    return OpenLoop(
        windows.start,
        windows.following,
        np.concatenate(means),
        np.concatenate(lows),
        np.concatenate(highs),
    )


def _rmse(error: NDArray[np.floating], columns: tuple[int, ...]) -> tuple[float, ...]:
    squared = np.square(error[..., list(columns)].astype(np.float64))
    return tuple(np.sqrt(squared.mean(axis=(0, 2))).tolist())
