"""What members learn from: samples in original units, and standardised ones on a device.

Shapes: M samples, N validation samples, I inputs, D targets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynlearn.errors import CorruptData
from dynlearn.models.regressor import EnsembleRegressor


class Samples(NamedTuple):
    """What a regressor is asked and what it should have answered, in original units.

    Attributes:
        inputs: [M, I], best in float64.
        targets: [M, D], likewise.
        magnitude: the largest absolute values that targets lead to, [D].
    """

    inputs: NDArray[np.floating]
    targets: NDArray[np.floating]
    magnitude: NDArray[np.floating]


@dataclass(frozen=True)
class TrainingData:
    """What members learn from and are selected on, standardised, on one device.

    Attributes:
        inputs: [M, I].
        targets: [M, D].
        validation_inputs: [N, I].
        validation_targets: [N, D].
    """

    inputs: Tensor
    targets: Tensor
    validation_inputs: Tensor
    validation_targets: Tensor


def standardise(
    regressor: EnsembleRegressor, training: Samples, validation: Samples, dtype: torch.dtype
) -> tuple[TrainingData, str]:
    """Fit a regressor's scalers to the training samples and standardise all samples by them.

    Returns:
        The data in the given dtype on the regressor's device, and a checksum of the samples.

    Raises:
        CorruptData: a value is not finite in float32.
    """
    raw = [
        _as_predicted(values)
        for samples in (training, validation)
        for values in (samples.inputs, samples.targets)
    ]
    regressor.input_scaler.fit(raw[0])
    regressor.target_scaler.fit(raw[1], of_constant=None)
    resolution = np.finfo(np.float32).eps * training.magnitude
    regressor.least_std.copy_(torch.from_numpy(resolution))
    scalers = (regressor.input_scaler, regressor.target_scaler) * 2
    standardised = [
        scaler.standardise(values.to(regressor.device)).to(dtype)
        for scaler, values in zip(scalers, raw, strict=True)
    ]
    if not all(tensor.isfinite().all() for tensor in standardised):
        raise CorruptData(
            "expected finite transitions within float32's range, got NaN, infinity or more; "
            "find the episodes with `dynlearn datasets verify` and collect them anew"
        )
    return TrainingData(*standardised), _checksum(raw)


def _as_predicted(values: NDArray[np.floating]) -> Tensor:
    """Return values in float64, rounded as they will come when the regressor predicts.

    So that a large constant standardises to zero in both places.
    """
    return torch.from_numpy(values.astype(np.float64)).float().double()


def _checksum(tensors: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
