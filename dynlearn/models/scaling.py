"""Standardisation of each dimension, kept inside the model and saved with it."""

import torch
from torch import Tensor, nn

# Below this share of a column's magnitude its spread is float32 rounding, not data.
_RELATIVE_RESOLUTION = 4 * torch.finfo(torch.float32).eps
# Below this the least variance of the network, 1e-8, is no float32 number in original units.
_SMALLEST_STD = 1e-14


class Scaler(nn.Module):
    """Maps each of D dimensions to zero mean and unit standard deviation, and back.

    A dimension that is constant to float32 resolution keeps the scale one, so that it
    standardises to zero.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, values: Tensor) -> None:
        """Take the statistics of ``values`` [N, D], in float64."""
        values = values.double()
        std = values.std(0, correction=0)
        resolution = _RELATIVE_RESOLUTION * values.abs().amax(0)
        constant = std <= resolution.clamp_min(_SMALLEST_STD)
        self.mean.copy_(values.mean(0))
        self.std.copy_(torch.where(constant, 1.0, std))

    def standardise(self, values: Tensor) -> Tensor:
        """Return ``values`` [..., D] in units of standard deviations from the mean."""
        return (values - self.mean) / self.std

    def restore(self, standardised: Tensor) -> Tensor:
        """Return values [..., D] in original units."""
        return torch.addcmul(self.mean, standardised, self.std)
