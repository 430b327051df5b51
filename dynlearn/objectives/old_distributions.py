"""What trust regions hold on to: the old distribution of each sample, of each member.

Shapes: E members, B batch, M samples, I inputs, D targets.
"""

import copy
import logging

import torch
from torch import Tensor, nn

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian, Gaussian
from dynlearn.errors import InvalidInput
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.trust_region import TrustRegion

_CHUNK = 1_024
_GIB = 2**30

logger = logging.getLogger(__name__)


class SampleMemory(nn.Module):
    """The old mean and scale of every sample of every member, under its stable id.

    A refresh projects the network's prediction onto the trust region around the old distribution
    and keeps that, so that no sample moves further in one refresh than the bounds allow.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        network: EnsembleNetwork,
        inputs: Tensor,
        region: TrustRegion,
        member_limit_gib: float,
    ):
        """Keep the untrained network's predictions for ``inputs`` [M, I].

        Raises:
            InvalidInput: a member's would need more memory than ``member_limit_gib``.
        """
        super().__init__()
        self._predict, self._inputs, self._region = network.forward, inputs, region
        self._full = network.head.kind == "scale_tril"
        d = network.head.targets
        rows = (network.members, len(inputs))
        floats = d + (d * d if self._full else d)
        member_gib = rows[1] * floats * inputs.element_size() / _GIB
        if member_gib > member_limit_gib:
            raise InvalidInput(
                f"expected old distributions of at most {member_limit_gib:.3g} GiB for each "
                f"member, got {member_gib:.3g} GiB for {rows[1]} samples; set old_distributions "
                "to snapshot, or raise memory_limit_gib"
            )
        logger.info(
            "old distributions of %d samples of %d members: %.3g GiB",
            rows[1],
            rows[0],
            rows[0] * member_gib,
        )
        self.register_buffer("mean", inputs.new_empty(*rows, d))
        self.register_buffer("scale", inputs.new_empty(*rows, *((d, d) if self._full else (d,))))
        self._fill(project=False)

    def refresh(self) -> None:
        """Take in the network's predictions of now, each within its old one's trust region."""
        self._fill(project=True)

    def old(self, sample_ids: Tensor) -> Gaussian:
        """Return the old distributions of samples [E, B], over [E, B, D]."""
        members = torch.arange(len(sample_ids), device=sample_ids.device).unsqueeze(1)
        return self._gaussian(self.mean[members, sample_ids], self.scale[members, sample_ids])

    @torch.no_grad()
    def _fill(self, project: bool) -> None:
        for start in range(0, len(self._inputs), _CHUNK):
            rows = slice(start, start + _CHUNK)
            new = self._predict(self._inputs[rows])
            assert isinstance(new, DiagonalGaussian | FullGaussian)
            if project:
                new = self._region.project(
                    new, self._gaussian(self.mean[:, rows], self.scale[:, rows])
                )
            self.mean[:, rows] = new.mean
            self.scale[:, rows] = new.scale_tril if isinstance(new, FullGaussian) else new.variance

    def _gaussian(self, mean: Tensor, scale: Tensor) -> Gaussian:
        return FullGaussian(mean, scale) if self._full else DiagonalGaussian(mean, scale)


class SnapshotMemory(nn.Module):
    """The network as it was at the last refresh, for data too large to keep distributions of.

    Costs a forward pass at each update, and no memory that grows with the data. The old
    distributions are the snapshot's own, without the projection of a `SampleMemory`.
    """

    def __init__(self, network: EnsembleNetwork, inputs: Tensor):
        super().__init__()
        self._weights, self._inputs = network.state_dict, inputs
        self.snapshot = copy.deepcopy(network).requires_grad_(False)
        parameters = sum(tensor.numel() for tensor in network.parameters())
        gib = parameters * inputs.element_size() / _GIB
        logger.info("old distributions of %d members: a snapshot, %.3g GiB", network.members, gib)

    def refresh(self) -> None:
        """Take a snapshot of the network of now."""
        self.snapshot.load_state_dict(self._weights())

    @torch.no_grad()
    def old(self, sample_ids: Tensor) -> Gaussian:
        """Return the old distributions of samples [E, B], over [E, B, D]."""
        gaussian = self.snapshot(self._inputs[sample_ids])
        assert isinstance(gaussian, DiagonalGaussian | FullGaussian)
        return gaussian
