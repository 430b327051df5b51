"""What members learn from: samples in original units, and standardised ones on a device.

There are never more copies of all samples than one in float32, in which they are standardised.

Shapes: M samples, N validation samples, I inputs, D targets, ``...`` any batch dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynlearn.errors import CorruptData
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.scaling import BLOCK, Scaler


class Samples(NamedTuple):
    """What a regressor is asked and what it should have answered, in original units.

    Attributes:
        inputs: [M, I].
        targets: [M, D].
        magnitude: the largest absolute values that targets lead to, [D].
    """

    inputs: NDArray[np.floating]
    targets: NDArray[np.floating]
    magnitude: NDArray[np.floating]


def gather(parts: Iterable[Samples], most: int) -> Samples:
    """Return samples that come a part at a time, one part after the other, in float32.

    Args:
        parts: at least one.
        most: how many samples there are at most.
    """
    inputs = targets = magnitude = None
    end = 0
    for part in parts:
        if inputs is None or targets is None or magnitude is None:
            # Memory that is never written to is never taken.
            inputs = np.empty((most, part.inputs.shape[1]), np.float32)
            targets = np.empty((most, part.targets.shape[1]), np.float32)
            magnitude = part.magnitude
        start, end = end, end + len(part.inputs)
        # What float32 does not hold becomes infinite, and is refused later.
        with np.errstate(over="ignore"):
            inputs[start:end], targets[start:end] = part.inputs, part.targets
        magnitude = np.maximum(magnitude, part.magnitude)
    if inputs is None or targets is None or magnitude is None:
        raise CorruptData("expected at least one transition, got none")
    return Samples(inputs[:end], targets[:end], magnitude)


def subset(samples: Samples, most: int, seed: int) -> Samples:
    """Return at most so many samples, drawn by a seed if there are more, in their order."""
    if len(samples.inputs) <= most:
        return samples
    chosen = np.random.default_rng(seed).choice(len(samples.inputs), most, replace=False)
    chosen.sort()
    return samples._replace(inputs=samples.inputs[chosen], targets=samples.targets[chosen])


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

    Samples in float32 are standardised where they are, if that is where they are needed.

    Returns:
        The data in the given dtype on the regressor's device, and a checksum of the samples.

    Raises:
        CorruptData: a value is not finite in float32.
    """
    # Rounded as they will come when the regressor predicts, so that a large constant standardises
    # to zero in both places.
    raw = [
        torch.from_numpy(values).float()
        for samples in (training, validation)
        for values in (samples.inputs, samples.targets)
    ]
    checksum = _checksum(raw)
    regressor.input_scaler.fit(raw[0])
    regressor.target_scaler.fit(raw[1], of_constant=None)
    resolution = np.finfo(np.float32).eps * training.magnitude
    regressor.least_std.copy_(torch.from_numpy(resolution))
    scalers = (regressor.input_scaler, regressor.target_scaler) * 2
    return TrainingData(
        *(_standardised(*pair, dtype) for pair in zip(scalers, raw, strict=True))
    ), checksum


def _standardised(scaler: Scaler, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``values`` [..., D] standardised, in place where dtype and device allow it.

    Raises:
        CorruptData: one is not finite.
    """
    device = scaler.mean.device
    is_there = values.dtype == dtype and values.device == device
    found = values if is_there else torch.empty(values.shape, dtype=dtype, device=device)
    for block, result in zip(torch.split(values, BLOCK), torch.split(found, BLOCK), strict=True):
        result.copy_(scaler.standardise(block.double().to(device)))
        if not result.isfinite().all():
            raise CorruptData(
                "expected finite transitions within float32's range, got NaN, infinity or more; "
                "find the episodes with `dynlearn datasets verify` and collect them anew"
            )
    return found


def _checksum(tensors: list[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        for block in torch.split(tensor, BLOCK):
            digest.update(block.double().contiguous().numpy().data)
    return digest.hexdigest()
