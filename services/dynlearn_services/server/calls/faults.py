"""Whose fault an answer is that is not finite: the caller's, where the request led there.

Shapes: N rows, O observation, G context, H horizon.
"""

from itertools import takewhile

import numpy as np

from dynlearn.errors import InvalidInput
from dynlearn.protocol.tensors import Array
from dynlearn_services.server.models.loaded_model import LoadedModel

_MOST_DEVIATIONS = 1e6
_LARGEST = 1e18


def require_near(model: LoadedModel, observation: Array, context: Array | None = None) -> None:
    """Check that observations and contexts are anywhere near what the model was trained on.

    Args:
        model: what gave no finite answer.
        observation: [N, O].
        context: [N, G].

    Raises:
        InvalidInput: one is so far away that no answer can be expected of the model.
    """
    columns = list(model.model.spec.observation_columns)
    scaler = model.model.regressor.input_scaler
    mean, std = (values[: len(columns)].cpu().numpy() for values in (scaler.mean, scaler.std))
    if (origin := model.model.spec.origin) is not None:
        observation = observation - np.array(origin)
    with np.errstate(over="ignore"):
        away_by_row = np.abs((observation[:, columns] - mean) / std).max(1)
    row = int(away_by_row.argmax())
    away = {f"observation: row {row}": away_by_row[row]}
    if model.reward is not None and context is not None:
        away["context"] = model.reward.deviations(context)
    for name, deviations in away.items():
        if deviations > _MOST_DEVIATIONS:
            raise InvalidInput(
                f"{name}: expected values like those that model {model.name} was trained on, "
                f"got some {deviations:.3g} standard deviations away, where it has no finite "
                "answer"
            )
    largest = np.abs(observation).max(1)
    row = int(largest.argmax())
    if largest[row] > _LARGEST:
        raise InvalidInput(
            f"observation: row {row}: expected values up to {_LARGEST:g}, whose squares are "
            f"finite, got {largest[row]:.3g}"
        )


def require_finite_beginning(steps: Array) -> None:
    """Blame the horizon for what is not finite, where the first step is.

    Args:
        steps: what was imagined, [H, ...].

    Raises:
        InvalidInput: the first steps are finite, and later ones are not.
    """
    finite = len(list(takewhile(lambda step: np.isfinite(step).all(), steps)))
    if 0 < finite < len(steps):
        raise InvalidInput(
            f"actions: expected a horizon over which the model's trajectories stay finite, got "
            f"{len(steps)} steps, of which {finite} are; ask for fewer"
        )
