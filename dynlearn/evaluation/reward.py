"""A learned reward held against the real one.

Shapes: M transitions.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.transitions import judged_transitions
from dynlearn.errors import InvalidInput
from dynlearn.models.reward import LearnedReward
from dynlearn.spaces import ActionSpace

_CHUNK = 8_192


@torch.no_grad()
def reward_rmse(reward: LearnedReward, table: EpisodeTable, action_space: ActionSpace) -> float:
    """Return the root mean squared error over all transitions of episodes.

    Raises:
        InvalidInput: the episodes have other columns, goals or actions.
    """
    judged = judged_transitions(table, action_space, reward.origin)
    expected, got = reward.regressor.spec.inputs, judged.inputs.shape[1]
    if got != expected:
        raise InvalidInput(
            f"expected episodes with goals of {reward.context_size} columns, as the reward was "
            f"learned on, got goals of {got - expected + reward.context_size}"
        )
    squared = 0.0
    for first in range(0, len(judged), _CHUNK):
        rows = slice(first, first + _CHUNK)
        inputs = torch.as_tensor(
            judged.inputs[rows], dtype=torch.float32, device=reward.regressor.device
        )
        mean = reward.regressor(inputs).mean[0, :, 0]
        error = mean.cpu().double().numpy() - judged.reward[rows]
        squared += float(np.square(error).sum())
    return math.sqrt(squared / len(judged))
