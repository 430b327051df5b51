"""Trustable: regression on natural-gradient targets that stay within trust regions.

Shapes: E members, B batch, D targets.
"""

from typing import Literal

import torch
from torch import Tensor

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, wasserstein
from dynlearn.distributions.mixture import Distribution
from dynlearn.objectives.natural_gradient import natural_gradient_step
from dynlearn.objectives.trust_region_nll import TrustRegionObjective
from dynlearn.objectives.weighted_losses import weighted_divergence
from dynlearn.trust_region import TrustRegion


class Trustable(TrustRegionObjective):
    """Regression on targets one natural-gradient step of the NLL away, within trust regions.

    The prediction, projected, takes a natural-gradient step towards its own target value and is
    projected again; the network is then fitted to that distribution. Fitted in 2-Wasserstein
    distance the gradient is, where no bound is met, that of β-NLL with β = 1, in KL divergence
    that of the NLL, and in KL divergence weighted with the variance to the power β that of β-NLL.
    All but the network's own arithmetic is in float64.
    """

    def __init__(
        self,
        region: TrustRegion,
        natural_step: float,
        regression_metric: Literal["kl", "w2"],
        beta: float,
        refresh_epochs: int,
        old_distributions: Literal["samples", "snapshot"],
        member_limit_gib: float,
    ):
        super().__init__(region, refresh_epochs, old_distributions, member_limit_gib)
        self.natural_step = natural_step
        self.regression_metric = regression_metric
        self.beta = beta

    def loss(self, prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E], the mean over the batch."""
        assert isinstance(prediction, DiagonalGaussian | FullGaussian)
        precise = prediction.apply(Tensor.double)
        with torch.no_grad():
            old = self._memory.old(sample_ids).apply(Tensor.double)
            projected = self.region.project(precise, old)
            moved = natural_gradient_step(projected, target.double(), self.natural_step)
            goal = self.region.project(moved, old)
        if self.regression_metric == "w2":
            distance = wasserstein(precise, goal)
        else:
            distance = weighted_divergence(goal, precise, self.beta)
        return distance.mean(-1).to(target.dtype)
