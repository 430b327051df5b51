"""Standardisation of each dimension, kept inside the model and saved with it.

Shapes: N values, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Below this share of a column's magnitude its spread is float32 rounding, not data.
_RELATIVE_RESOLUTION = 4 * torch.finfo(torch.float32).eps
# Below this the least variance of the network, 1e-8, is no float32 number in original units.
_SMALLEST_STD = 1e-14
BLOCK = 2**16
"""How many rows are taken to float64 at a time."""


class Moments:
    """The mean, variance and largest absolute value of each dimension, in float64.

    Of values that come a block at a time, by the formula of Chan, Golub & LeVeque (1983), whose
    error does not grow with the mean.

    Attributes:
        count: of rows.
        mean: [D].
        variance: [D].
        largest: [D].
    """

    def __init__(self, size: int):
        self.count = 0
        self.mean, self.variance, self.largest = torch.zeros(3, size, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Take in values [N, D] of any real dtype."""
        for block in torch.split(values, BLOCK):
            self._add(block.double())

    def _add(self, block: Tensor) -> None:
        if not len(block):
            return
        count = self.count + len(block)
        mean, variance = block.mean(0), block.var(0, correction=0)
        self.largest = torch.maximum(self.largest, block.abs().amax(0))
        if not self.count:
            self.count, self.mean, self.variance = count, mean, variance
            return
        share, apart = len(block) / count, mean - self.mean
        self.mean = self.mean + share * apart
        self.variance = torch.lerp(self.variance, variance, share)
        self.variance += share * (1 - share) * apart.square()
        self.count = count


class Scaler(nn.Module):
    """Maps each of D dimensions to zero mean and unit standard deviation, and back.

    A dimension that is constant to float32 resolution standardises to zero, or nearly.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, values: Tensor, of_constant: float | None = 1.0) -> None:
        """Take the statistics of ``values`` [N, D].

        Args:
            values: to be standardised, on the CPU.
            of_constant: the scale of a constant. One is for inputs: what departs from the constant
                by rounding stays small. None is for targets: the scale then is the constant's own
                resolution, so that a network that answers about zero restores it exactly.
        """
        moments = Moments(values.shape[1])
        moments.add(values)
        std = moments.variance.sqrt()
        resolution = _RELATIVE_RESOLUTION * moments.largest
        resolution = resolution.clamp_min(_SMALLEST_STD)
        scale = resolution if of_constant is None else of_constant
        self.mean.copy_(moments.mean)
        self.std.copy_(torch.where(std <= resolution, scale, std))

    def standardise(self, values: Tensor) -> Tensor:
        """Return ``values`` [..., D] in units of standard deviations from the mean."""
        return (values - self.mean) / self.std

    def restore(self, standardised: Tensor) -> Tensor:
        """Return values [..., D] in original units."""
        return torch.addcmul(self.mean, standardised, self.std)
