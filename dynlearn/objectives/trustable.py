"""Trustable: regression on natural-gradient targets that stay within trust regions.

Shapes: E members, B batch, D targets.
"""

import torch
from torch import Tensor

from dynlearn.config.objectives import TrustableSettings
from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, wasserstein
from dynlearn.distributions.mixture import Distribution
from dynlearn.objectives.natural_gradient import natural_gradient_step
from dynlearn.objectives.trust_region_nll import TrustRegionObjective
from dynlearn.objectives.weighted_losses import weighted_divergence


class Trustable(TrustRegionObjective):
    """Regression on targets one natural-gradient step of the NLL away, within trust regions.

    The prediction, projected, takes a natural-gradient step towards its own target value and is
    projected again; the network is then fitted to that distribution. Fitted in 2-Wasserstein
    distance the gradient is, where no bound is met, that of β-NLL with β = 1, in KL divergence
    that of the NLL, and in KL divergence weighted with the variance to the power β that of β-NLL.
    All but the network's own arithmetic is in float64.
    """

    settings: TrustableSettings

    def __init__(self, settings: TrustableSettings, members: int):
        """Take the settings for an ensemble of so many members, who share the memory."""
        super().__init__(settings, members)

    def describe(self) -> str:
        """Return the name, the metric, the step, β and the bounds."""
        name, *bounds = super().describe().split(", ")
        fitted = f"fitted in {self.settings.regression_metric}"
        step, beta = self.settings.natural_step, self.settings.beta
        return ", ".join([name, fitted, f"step {step:g}", f"β = {beta:g}", *bounds])

    def loss(self, prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E], the mean over the batch."""
        assert isinstance(prediction, DiagonalGaussian | FullGaussian)
        precise = prediction.apply(Tensor.double)
        with torch.no_grad():
            old = self._memory.old(sample_ids).apply(Tensor.double)
            projected = self.region.project(precise, old)
            moved = natural_gradient_step(projected, target.double(), self.settings.natural_step)
            goal = self.region.project(moved, old)
        if self.settings.regression_metric == "w2":
            distance = wasserstein(precise, goal)
        else:
            distance = weighted_divergence(goal, precise, self.settings.beta)
        return distance.mean(-1).to(target.dtype)
