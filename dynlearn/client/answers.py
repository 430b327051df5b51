"""What a served model answers: its description, predictions, draws and rollouts.

Shapes: E members, B batch, O observation, D predicted columns, S start states, P candidates,
N particles, H horizon.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dynlearn.errors import InvalidInput
from dynlearn.protocol.metadata import ModelParameters

Values = Any
"""A numpy array of the caller's own; a torch tensor of a client ``as_torch``."""


class RemoteSpec(ModelParameters):
    """What a served model takes and predicts, and the version that was served when asked."""

    name: str


@dataclass(frozen=True)
class _Fetched:
    """What was asked for, by attribute name, and the version that answered."""

    arrays: Mapping[str, Values]
    model_version: str

    def _get(self, name: str) -> Values:
        if name not in self.arrays:
            raise InvalidInput(
                f"expected one of the outputs {', '.join(self.arrays)} that were asked for, got "
                f"{name}; ask with outputs=({name!r}, ...)"
            )
        return self.arrays[name]


@dataclass(frozen=True)
class RemotePrediction(_Fetched):
    """The parts of a prediction that were asked for, and those that follow from them.

    Attributes:
        arrays: what came, by attribute name.
        model_version: the version that answered.
    """

    @property
    def mean(self) -> Values:
        """The mixture's mean, [B, D]."""
        return self._get("mean")

    @cached_property
    def variance(self) -> Values:
        """The diagonal of the covariance, [B, D]."""
        if "variance" in self.arrays or not self._has_covariance:
            return self._get("variance")
        return self.covariance.diagonal(0, 1, 2)

    @cached_property
    def std(self) -> Values:
        """The square root of the variance, [B, D]."""
        return self.variance**0.5

    @cached_property
    def covariance(self) -> Values:
        """The mixture's covariance, aleatoric plus epistemic, [B, D, D]."""
        if "covariance" in self.arrays or not self._has_covariance:
            return self._get("covariance")
        return self.aleatoric + self.epistemic

    @property
    def aleatoric(self) -> Values:
        """The mean of the members' covariances, [B, D, D]."""
        return self._get("aleatoric")

    @property
    def epistemic(self) -> Values:
        """The covariance of the members' means, [B, D, D]."""
        return self._get("epistemic")

    @property
    def member_means(self) -> Values:
        """Each member's mean, [E, B, D]."""
        return self._get("member_means")

    @property
    def member_variances(self) -> Values:
        """Each member's variance, [E, B, D]."""
        return self._get("member_variances")

    @property
    def member_scale_trils(self) -> Values:
        """The lower Cholesky factor of each member's covariance, [E, B, D, D]."""
        return self._get("member_scale_trils")

    @property
    def reward_mean(self) -> Values:
        """The learned reward at each member's mean, averaged over the members, [B]."""
        return self._get("reward_mean")

    @property
    def _has_covariance(self) -> bool:
        return "covariance" in self.arrays or {"aleatoric", "epistemic"} <= self.arrays.keys()


@dataclass(frozen=True)
class RemoteSample:
    """One draw a row.

    Attributes:
        value: the next observations' predicted columns, [B, D].
        member: which member each was drawn from, [B].
        model_version: the version that answered.
    """

    value: Values
    member: Values
    model_version: str


@dataclass(frozen=True)
class RemoteRollout(_Fetched):
    """The parts of a rollout that were asked for.

    Attributes:
        arrays: what came, by attribute name.
        model_version: the version that answered.
    """

    @property
    def returns(self) -> Values:
        """The score of each action sequence, [S, P]; the lowest float32 where it is not finite."""
        return self._get("returns")

    @property
    def return_std(self) -> Values:
        """The standard deviation of the particles' returns, [S, P]."""
        return self._get("return_std")

    @property
    def mean(self) -> Values:
        """The particles' mean, [S, P, H, O]."""
        return self._get("mean")

    @cached_property
    def variance(self) -> Values:
        """The diagonal of the covariance, [S, P, H, O]."""
        if "variance" in self.arrays or "covariance" not in self.arrays:
            return self._get("variance")
        return self.covariance.diagonal(0, 3, 4)

    @property
    def covariance(self) -> Values:
        """The particles' covariance, [S, P, H, O, O]."""
        return self._get("covariance")

    @property
    def particles(self) -> Values:
        """The imagined next observations, [S, P, N, H, O]."""
        return self._get("particles")
