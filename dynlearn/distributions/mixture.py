"""The moments of an ensemble's mixture, split into aleatoric and epistemic.

Shapes: E members, B batch, D dimensions.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.distributions.student_t import StudentT

Distribution = DiagonalGaussian | FullGaussian | StudentT


@dataclass(frozen=True)
class Prediction:
    """An ensemble's prediction: an equally weighted mixture of its members' distributions.

    The covariance is the mixture's own, and splits exactly (law of total variance) into
    ``aleatoric``, the mean of the members' covariances, and ``epistemic``, the covariance of the
    members' means.

    Attributes:
        members: one distribution over [E, B, D].
    """

    members: Distribution

    @property
    def member_means(self) -> Tensor:
        """The members' means, [E, B, D]."""
        return self.members.mean

    @cached_property
    def member_variances(self) -> Tensor:
        """The diagonals of the members' covariances, [E, B, D]."""
        return self.members.variance

    @cached_property
    def member_scale_trils(self) -> Tensor:
        """The lower Cholesky factors of the members' covariances, [E, B, D, D]."""
        if isinstance(self.members, FullGaussian):
            return self.members.scale_tril
        return torch.diag_embed(self.member_variances.sqrt())

    @cached_property
    def mean(self) -> Tensor:
        """The mixture's mean, [B, D]."""
        return self.member_means.mean(0)

    @cached_property
    def variance(self) -> Tensor:
        """The diagonal of the mixture's covariance, [B, D]."""
        # Not `var`, which is fifty times slower over a leading dimension.
        return self.member_variances.mean(0) + (self.member_means - self.mean).square().mean(0)

    @cached_property
    def std(self) -> Tensor:
        """The square root of the variance, [B, D]."""
        return self.variance.sqrt()

    @cached_property
    def aleatoric(self) -> Tensor:
        """The mean of the members' covariances, [B, D, D]."""
        if isinstance(self.members, FullGaussian):
            # One product of the factors side by side, not E covariances and then their mean.
            factor = self.members.scale_tril.permute(1, 2, 0, 3).flatten(2)
            return (factor @ factor.mT).div_(len(self.member_means))
        return torch.diag_embed(self.member_variances.mean(0))

    @cached_property
    def epistemic(self) -> Tensor:
        """The covariance of the members' means, [B, D, D]."""
        deviation = (self.member_means - self.mean).permute(1, 2, 0)
        return (deviation @ deviation.mT).div_(len(self.member_means))

    @cached_property
    def covariance(self) -> Tensor:
        """The mixture's covariance, aleatoric plus epistemic, [B, D, D]."""
        # D × D numbers a row take longer to write than to compute: here they are written once.
        covariance = Prediction(self.members).epistemic
        if isinstance(self.members, FullGaussian):
            return covariance.add_(self.aleatoric)
        covariance.diagonal(dim1=-2, dim2=-1).add_(self.member_variances.mean(0))
        return covariance

    @cached_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance, in float64, [B, D, D].

        There is one for all finite members: where rounding has left the covariance indefinite, as
        of members that disagree by far more than each is unsure of, it comes from its factors.
        """
        factor: Tensor
        factor, info = torch.linalg.cholesky_ex(self.covariance.double())
        failed = ((info != 0) | ~factor.isfinite().all(-1).all(-1)).nonzero().flatten()
        if len(failed):
            factor[failed] = self._factor_of_factors(failed)
        return factor

    def _factor_of_factors(self, rows: Tensor) -> Tensor:
        """Return the factor of the covariance of some rows, which is never formed.

        The covariance is ``F Fᵀ / E`` with the members' factors and deviations side by side in F,
        so R of the QR decomposition of Fᵀ is its factor, but for signs.
        """
        means = self.member_means[:, rows].double()
        apart = (means - means.mean(0)).permute(1, 2, 0)
        own = self.member_scale_trils[:, rows].double().permute(1, 2, 0, 3).flatten(2)
        wide = torch.cat((own, apart), 2) / math.sqrt(len(means))
        upper: Tensor = torch.linalg.qr(wide.mT, mode="r").R
        signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
        return upper.mT * signs.unsqueeze(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the mixture's log-density of ``value`` [B, D], as [B]."""
        members = self.members.log_prob(value)
        return torch.logsumexp(members, 0) - math.log(len(members))
