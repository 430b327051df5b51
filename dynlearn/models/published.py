"""A published version: the dynamics and what was learned beside them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from dynlearn.config.choices import PredictionPrecision
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.reward import LearnedReward
from dynlearn.storage.checksums import verify_checksums


class PublishedModel(NamedTuple):
    """What a version's folder holds.

    Attributes:
        dynamics: the model.
        reward: what it has learned of the reward, where it has.
    """

    dynamics: DynamicsModel
    reward: LearnedReward | None


def load_published(
    folder: Path,
    device: str | torch.device = "cpu",
    precision: PredictionPrecision = "float32",
) -> PublishedModel:
    """Read a version of the registry.

    Args:
        folder: of the version.
        device: where to predict.
        precision: of the products between hidden layers.

    Raises:
        NotFound: there is no model.
        CorruptData: a file is gone, truncated, altered, or does not fit the others.
    """
    verify_checksums(folder)
    dynamics = DynamicsModel.load(folder, device, precision)
    return PublishedModel(dynamics, LearnedReward.load(folder, dynamics))
