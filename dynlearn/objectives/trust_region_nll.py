"""Objectives that hold on to each sample's old distribution; the NLL within its trust region.

Shapes: E members, B batch, M samples, I inputs, D targets.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dynlearn.config.choices import Covariance
from dynlearn.config.objectives import TrustableSettings, TrustRegionNLLSettings
from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.distributions.mixture import Distribution
from dynlearn.models.heads import HeadKind
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.objectives.objective import Objective
from dynlearn.objectives.old_distributions import SampleMemory, SnapshotMemory
from dynlearn.trust_region import TrustRegion


class TrustRegionObjective(Objective):
    """An objective that knows each sample's old distribution and refreshes it as epochs pass.

    The bounds that are set are for one dimension; distances add up over dimensions, so the region
    itself has D times the bounds.
    """

    epoch: Tensor
    _memory: SampleMemory | SnapshotMemory

    def __init__(self, settings: TrustRegionNLLSettings | TrustableSettings, members: int):
        """Take the settings for an ensemble of so many members, who share the memory."""
        super().__init__()
        self.settings = settings
        mean_bound, covariance_bound = (
            math.inf if bound is None else bound
            for bound in (settings.mean_bound, settings.covariance_bound)
        )
        self.region = TrustRegion(settings.trust_region, mean_bound, covariance_bound)
        self._member_limit_gib = settings.memory_limit_gib / members

    def describe(self) -> str:
        """Return the name and the bounds."""
        settings = self.settings
        bounds = {"mean": settings.mean_bound, "covariance": settings.covariance_bound}
        words = [
            f"{settings.trust_region} bound of the {part} {bound:g}"
            for part, bound in bounds.items()
            if bound is not None
        ]
        return ", ".join([settings.name, *words])

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
        if self.settings.old_distributions == "samples":
            self._memory = SampleMemory(network, inputs, self.region, self._member_limit_gib)
        else:
            self._memory = SnapshotMemory(network, inputs)
        # Per member, as everything that checkpoints hold.
        epoch = torch.zeros(network.members, dtype=torch.int64)
        self.register_buffer("epoch", epoch)

    def begin_epoch(self, epoch: int) -> None:
        """Refresh the old distributions where that is due and has not been done."""
        if epoch % self.settings.refresh_epochs == 0 and epoch != int(self.epoch[0]):
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
