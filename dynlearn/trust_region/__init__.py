"""Trust regions: Gaussians kept within a distance of old ones, by projections with gradients.

A Gaussian's mean and covariance are bounded apart. What lies within a bound is returned as it is;
what does not is moved onto it. The projections are those of differentiable trust region layers
(Otto et al. 2021).
"""

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from dynlearn.config.choices import TrustRegionMetric
from dynlearn.distributions.gaussian import FullGaussian, Gaussian
from dynlearn.errors import InvalidInput, nearest
from dynlearn.trust_region import frobenius, kl, wasserstein
from dynlearn.trust_region import mean as mean_part

__all__ = ["TrustRegion"]


@dataclass(frozen=True)
class TrustRegion:
    """The Gaussians within two bounds of an old one.

    Everything is computed in float64, whatever the dtype of the Gaussians. Variances and the
    diagonals of Cholesky factors must be positive. A sample whose distance to the old one is NaN
    or infinite, as with a parameter that is not finite, comes back as it is and its gradient
    passes; the other samples of the batch are right.

    Attributes:
        metric: the distance of covariances, each zero where they are equal:

            - ``kl``: ``½ (tr Σ_o⁻¹ Σ - D + ln |Σ_o| - ln |Σ|)``, their part of KL(new ‖ old);
            - ``w2``: ``‖Σ^½ Σ_o^-½ - I‖²_F``, the squared 2-Wasserstein distance of commuting
              covariances in units of the old one;
            - ``w2_unscaled``: ``‖Σ^½ - Σ_o^½‖²_F``;
            - ``frobenius``: ``‖Σ - Σ_o‖²_F``.
        mean_bound: of ``(μ - μ_o)ᵀ Σ_o⁻¹ (μ - μ_o)``, or of ``‖μ - μ_o‖²`` with ``w2_unscaled``;
            infinity is no bound.
        covariance_bound: of the distance of covariances; infinity is no bound.

    Raises:
        InvalidInput: there is no such metric, or a bound is not positive.
    """

    metric: TrustRegionMetric
    mean_bound: float
    covariance_bound: float

    def __post_init__(self) -> None:
        if self.metric not in (known := get_args(TrustRegionMetric)):
            raise InvalidInput(
                f"no trust region metric {self.metric!r}: {nearest(self.metric, known)}"
            )
        for name in ("mean_bound", "covariance_bound"):
            if not (bound := getattr(self, name)) > 0:
                raise InvalidInput(f"{name} must be positive, not {bound}; inf is no bound")

    def project(self, new: Gaussian, old: Gaussian) -> Gaussian:
        """Return ``new``, moved onto the bounds where it is beyond them.

        Differentiable in ``new``; ``old`` is a constant.

        Args:
            new: over [..., D].
            old: of the same kind and shape.

        Returns:
            A Gaussian of the kind and dtype of ``new``.

        Raises:
            InvalidInput: the two Gaussians differ in kind or shape.
        """
        wide, fixed = _in_float64(new, old)
        mean = new.mean
        if self.mean_bound < torch.inf:
            mean = mean_part.project(wide.mean, fixed, self.mean_bound, scaled=self._scaled)
        scale = new.scale_tril if isinstance(new, FullGaussian) else new.variance
        if self.covariance_bound < torch.inf:
            match self.metric:
                case "kl":
                    scale = kl.project(wide, fixed, self.covariance_bound)
                case "frobenius":
                    scale = frobenius.project(wide, fixed, self.covariance_bound)
                case _:
                    bound = self.covariance_bound
                    scale = wasserstein.project(wide, fixed, bound, scaled=self._scaled)
        return type(new)(mean.to(new.mean.dtype), scale.to(new.mean.dtype))

    def mean_distance(self, new: Gaussian, old: Gaussian) -> Tensor:
        """Return the distance that ``mean_bound`` bounds, [...], in float64."""
        wide, fixed = _in_float64(new, old)
        return mean_part.distance(wide.mean, fixed, scaled=self._scaled)

    def covariance_distance(self, new: Gaussian, old: Gaussian) -> Tensor:
        """Return the distance that ``covariance_bound`` bounds, [...], in float64."""
        wide, fixed = _in_float64(new, old)
        match self.metric:
            case "kl":
                return kl.distance(wide, fixed)
            case "frobenius":
                return frobenius.distance(wide, fixed)
            case _:
                return wasserstein.distance(wide, fixed, scaled=self._scaled)

    @property
    def _scaled(self) -> bool:
        return self.metric != "w2_unscaled"


def _in_float64(new: Gaussian, old: Gaussian) -> tuple[Gaussian, Gaussian]:
    """Return both in float64, the old one without its gradient."""
    if type(new) is not type(old) or new.mean.shape != old.mean.shape:
        raise InvalidInput(
            f"expected an old {type(new).__name__} of shape {tuple(new.mean.shape)}, got "
            f"{type(old).__name__} of {tuple(old.mean.shape)}; give both the same kind and shape"
        )
    return new.apply(Tensor.double), old.apply(lambda tensor: tensor.detach().double())
