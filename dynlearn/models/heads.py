"""Heads: what the last layer's outputs mean, from raw numbers to a distribution.

All in standardised units. Shapes: D targets, C components of a prior, ``...`` any batch dimensions.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import hardtanh, softplus

from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.distributions.mixture import Distribution
from dynlearn.distributions.student_t import StudentT, VariationalStudentT

HeadKind = Literal["mean", "variance", "std", "scale_tril", "student_t"]

MIN_VARIANCE, MAX_VARIANCE = 1e-8, 100.0
MIN_STD, MAX_STD = 1e-4, 100.0
_MIN_CONCENTRATION, _MAX_CONCENTRATION = 1.001, 1000.0
_MIN_RATE, _MAX_RATE = 1e-11, 999_000.0


def _positive(raw: Tensor, least: float, most: float, at_zero: float = 1.0) -> Tensor:
    """Softplus, offset so that a raw zero gives ``at_zero``, kept between the bounds."""
    offset = math.log(math.expm1(at_zero - least))
    # Not `clamp`, whose gradient is three operations. Nothing is below zero.
    return hardtanh(softplus(raw + offset).add_(least), 0.0, most)


@dataclass(frozen=True)
class Head:
    """One of the kinds of outputs.

    - ``mean``: nothing but a mean.
    - ``variance``: each dimension's variance, between 1e-8 and 100 (β-NLL, Seitzer et al. 2022).
    - ``std``: each dimension's standard deviation, between 1e-4 and 100.
    - ``scale_tril``: the lower Cholesky factor of a full covariance. Its diagonal, each dimension's
      standard deviation given those before it, is between 1e-4 and 100; the entries beside it are
      in units of their row's.
    - ``student_t``: concentration and rate of the precision's gamma distribution, and with
      ``components`` logits of a prior over it (Stirn & Knowles 2020).
    """

    kind: HeadKind
    targets: int
    components: int = 0

    @property
    def blocks(self) -> tuple[int, ...]:
        """The widths of the maps side by side in the last layer, the mean's first."""
        d = self.targets
        if self.kind == "mean":
            return (d,)
        if self.kind == "scale_tril":
            return (d, d * (d + 1) // 2)
        if self.kind == "student_t":
            return (d, d, d, d * self.components) if self.components else (d, d, d)
        return (d, d)

    def distribution(self, mean: Tensor, raw: Tensor) -> Distribution:
        """Return what a mean [..., D] and the other raw outputs stand for; not of kind ``mean``."""
        if self.kind == "variance":
            return DiagonalGaussian(mean, _positive(raw, MIN_VARIANCE, MAX_VARIANCE))
        if self.kind == "std":
            return DiagonalGaussian(mean, _positive(raw, MIN_STD, MAX_STD).square())
        if self.kind == "scale_tril":
            return FullGaussian(mean, self._scale_tril(raw))
        d = self.targets
        concentration = (softplus(raw[..., :d]) + _MIN_CONCENTRATION).clamp(max=_MAX_CONCENTRATION)
        # A variance of one where both raw outputs are zero.
        at_zero = math.log(2) + _MIN_CONCENTRATION - 1
        rate = _positive(raw[..., d : 2 * d], _MIN_RATE, _MAX_RATE, at_zero)
        if not self.components:
            return StudentT(mean, concentration, rate)
        logits = raw[..., 2 * d :].reshape(*mean.shape, self.components)
        return VariationalStudentT(mean, concentration, rate, logits)

    def _scale_tril(self, raw: Tensor) -> Tensor:
        d = self.targets
        deviation = _positive(raw[..., :d], MIN_STD, MAX_STD).unsqueeze(-1)
        factor = torch.zeros_like(deviation).repeat_interleave(d, -1)
        row, column = torch.tril_indices(d, d, -1, device=raw.device)
        factor[..., row, column] = raw[..., d:]
        # Each row in units of its own deviation: else a small one makes whitening, and with it
        # the loss, as steep in the entries of its row as the deviation is small.
        return deviation * (factor + torch.eye(d, dtype=raw.dtype, device=raw.device))
