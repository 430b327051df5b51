"""TrueSlide: the true dynamics of ObjectSlide in place of a model's."""

import torch
from torch import Tensor

from dynlearn_envs.object_slide.dynamics import step


class TrueSlide:
    """The true dynamics of ObjectSlide, to plan with."""

    members = 1
    device = torch.device("cpu")

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Return the true next observations; there are no members and there is no noise."""
        return step(observation, action)
