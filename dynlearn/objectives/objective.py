"""Objective: the seam between the trainer, which knows none by name, and the ways to fit."""

from collections.abc import Sequence

from torch import Tensor, nn

from dynlearn.config.choices import Covariance
from dynlearn.distributions.mixture import Distribution
from dynlearn.errors import InvalidInput
from dynlearn.models.heads import HeadKind
from dynlearn.models.networks import EnsembleNetwork


class Objective(nn.Module):
    """A way to fit. Shapes: E members, B batch, M samples, I inputs, D targets; standardised.

    What an objective keeps between updates it registers as buffers, what it learns beside the
    network as parameters, the E members first in every shape: checkpoints hold them, the optimiser
    moves the parameters, and members can be trained apart.
    """

    name: str
    """What a configuration calls it."""

    components = 0
    """Logits of a prior over the precision that the head gives for each target."""

    def describe(self) -> str:
        """Return the name with the settings that shape it, in a line for the model card."""
        return self.name

    def head(self, covariance: Covariance) -> HeadKind:
        """Return the kind of head that the network needs.

        Raises:
            InvalidInput: the objective has no form for this covariance.
        """
        raise NotImplementedError

    def attach(
        self, network: EnsembleNetwork, inputs: Tensor, targets: Tensor, seeds: Sequence[int]
    ) -> None:
        """Get ready for training, once, before the first update.

        Args:
            network: what will be trained; E members.
            inputs: [M, I], of which each update takes some rows.
            targets: [M, D].
            seeds: of each member, for the objective's own draws.
        """

    def begin_epoch(self, epoch: int) -> None:
        """Do what is due when an epoch begins; after a resumption, again in the same epoch."""

    def loss(self, prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E].

        Args:
            prediction: [E, B, D].
            target: [E, B, D].
            sample_ids: which sample each row is, stable over epochs and resamples, [E, B].
        """
        raise NotImplementedError


def require_diagonal(covariance: Covariance, objective: str) -> None:
    """Check that a diagonal covariance is asked for.

    Raises:
        InvalidInput: it is not.
    """
    if covariance != "diagonal":
        raise InvalidInput(
            f"expected a diagonal covariance with {objective}, got {covariance}; "
            "take nll, beta_nll, trust_region_nll or trustable for a full one"
        )
