"""Trustable: regression on natural-gradient targets that stay within trust regions.

Shapes: E members, B batch, M samples, I inputs, D targets.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from dynlearn.config import Covariance
from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, Gaussian, wasserstein
from dynlearn.distributions.mixture import Distribution
from dynlearn.models.heads import HeadKind
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.objectives.objective import Objective
from dynlearn.objectives.old_distributions import SampleMemory, SnapshotMemory
from dynlearn.objectives.weighted_losses import weighted_divergence
from dynlearn.trust_region import TrustRegion


class TrustRegionObjective(Objective):
    """An objective that knows each sample's old distribution and refreshes it as epochs pass.

    The bounds of ``region`` are for one dimension; distances add up over dimensions, so the region
    itself has D times the bounds.
    """

    epoch: Tensor
    _memory: SampleMemory | SnapshotMemory

    def __init__(
        self,
        region: TrustRegion,
        refresh_epochs: int,
        old_distributions: Literal["samples", "snapshot"],
        member_limit_gib: float,
    ):
        super().__init__()
        self.region = region
        self._refresh_epochs = refresh_epochs
        self._old_distributions = old_distributions
        self._member_limit_gib = member_limit_gib

    def head(self, covariance: Covariance) -> HeadKind:
        """Return the head of a learned variance or Cholesky factor."""
        return "scale_tril" if covariance == "full" else "variance"

    def attach(
        self, network: EnsembleNetwork, inputs: Tensor, targets: Tensor, seeds: Sequence[int]
    ) -> None:
        """Keep the untrained network's distributions.

        Raises:
            InvalidInput: they need more memory than is allowed.
        """
        dimensions = targets.shape[1]
        self.region = replace(
            self.region,
            mean_bound=dimensions * self.region.mean_bound,
            covariance_bound=dimensions * self.region.covariance_bound,
        )
        if self._old_distributions == "samples":
            self._memory = SampleMemory(network, inputs, self.region, self._member_limit_gib)
        else:
            self._memory = SnapshotMemory(network, inputs)
        # Per member, as everything that checkpoints hold.
        epoch = torch.zeros(network.members, dtype=torch.int64)
        self.register_buffer("epoch", epoch)

    def begin_epoch(self, epoch: int) -> None:
        """Refresh the old distributions where that is due and has not been done."""
        if epoch % self._refresh_epochs == 0 and epoch != int(self.epoch[0]):
            self._memory.refresh()
            self.epoch.fill_(epoch)


class TrustRegionNLL(TrustRegionObjective):
    """NLL of the prediction projected onto its old distribution's trust region.

    Otto et al. 2021 (TRPL), for regression; the gradient goes through the projection.
    """

    def loss(self, prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E], the mean over the batch."""
        assert isinstance(prediction, DiagonalGaussian | FullGaussian)
        projected = self.region.project(prediction, self._memory.old(sample_ids))
        return -projected.log_prob(target).mean(-1)


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


def natural_gradient_step(gaussian: Gaussian, value: Tensor, step: float) -> Gaussian:
    """Return the Gaussian one natural-gradient step of the NLL of ``value`` away.

    With ``Σ = LLᵀ`` and ``z = L⁻¹(y - μ)`` the step moves μ by ``step · (y - μ)`` and L to
    ``L · E(step/2 · (zzᵀ - I))``, where ``E(x) = 1 + x + x²/2`` stands for the exponential: its
    eigenvalues are positive for every step up to one, so the covariance stays positive definite.

    Args:
        gaussian: [..., D].
        value: [..., D].
        step: between 0 and 1.
    """
    if isinstance(gaussian, DiagonalGaussian):
        error = value - gaussian.mean
        growth = _exponential(0.5 * step * (error.square() / gaussian.variance - 1))
        return DiagonalGaussian(gaussian.mean + step * error, gaussian.variance * growth.square())
    z = gaussian.whiten(value)
    squared_norm = z.square().sum(-1, keepdim=True)
    across = _exponential(torch.full_like(squared_norm, -0.5 * step))
    along = _exponential(0.5 * step * (squared_norm - 1))
    # E² = across² (I + excess zzᵀ).
    growth = (along / across).square() - 1
    excess = growth / squared_norm.clamp(min=torch.finfo(z.dtype).tiny)
    factor = across.unsqueeze(-1) * _rank_one_factor(z, excess)
    mean = gaussian.mean + step * (value - gaussian.mean)
    return FullGaussian(mean, gaussian.scale_tril @ factor)


def _rank_one_factor(vector: Tensor, weight: Tensor) -> Tensor:
    """Return the Cholesky factor [..., D, D] of ``I + weight · vector vectorᵀ``.

    In closed form from cumulative sums, hence with a positive diagonal at every magnitude.
    """
    after = 1 + weight * vector.square().cumsum(-1)
    before = torch.cat((torch.ones_like(weight), after[..., :-1]), -1)
    column = weight * vector / (after * before).sqrt()
    below = torch.tril(vector.unsqueeze(-1) * column.unsqueeze(-2), -1)
    return below + torch.diag_embed((after / before).sqrt())


def _exponential(exponent: Tensor) -> Tensor:
    return 1 + exponent + 0.5 * exponent.square()
