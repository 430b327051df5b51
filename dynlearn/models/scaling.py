"""Standardisation of each dimension, kept inside the model and saved with it."""

import torch
from torch import Tensor, nn

# Below this share of a column's magnitude its spread is float32 rounding, not data.
_RELATIVE_RESOLUTION = 4 * torch.finfo(torch.float32).eps
# Below this the least variance of the network, 1e-8, is no float32 number in original units.
_SMALLEST_STD = 1e-14


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
        """Take the statistics of ``values`` [N, D], in float64.

        Args:
            values: to be standardised.
            of_constant: the scale of a constant. One is for inputs: what departs from the constant
                by rounding stays small. None is for targets: the scale then is the constant's own
                resolution, so that a network that answers about zero restores it exactly.
        """
        values = values.double()
        std = values.std(0, correction=0)
        resolution = _RELATIVE_RESOLUTION * values.abs().amax(0)
        resolution = resolution.clamp_min(_SMALLEST_STD)
        scale = resolution if of_constant is None else of_constant
        self.mean.copy_(values.mean(0))
        self.std.copy_(torch.where(std <= resolution, scale, std))

    def standardise(self, values: Tensor) -> Tensor:
        """Return ``values`` [..., D] in units of standard deviations from the mean."""
        return (values - self.mean) / self.std

    def restore(self, standardised: Tensor) -> Tensor:
        """Return values [..., D] in original units."""
        return torch.addcmul(self.mean, standardised, self.std)
