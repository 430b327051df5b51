"""Variational variances: a gamma posterior over each target's precision, with a mixture as prior.

The loss is the negative evidence lower bound: the expected log-likelihood under the posterior that
the network predicts, less its divergence from a mixture of C gammas whose weights the network
predicts too (Stirn & Knowles 2020). The objectives differ in where the gammas come from.

Shapes: E members, B batch, C components, D targets, I inputs, M samples, S draws.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from dynlearn.config.choices import Covariance
from dynlearn.distributions.mixture import Distribution
from dynlearn.distributions.student_t import StudentT, VariationalStudentT
from dynlearn.models.heads import HeadKind
from dynlearn.models.networks import EnsembleNetwork
from dynlearn.objectives.objective import Objective, require_diagonal
from dynlearn.seeds import derived_generator

_DRAWS = 20
_COMPONENTS = 100
_GRID = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
_RAW_BOUND = 3.0
_MIN_PARAMETER = 1e-11
_PRIOR, _PRECISIONS = range(2)


class VariationalObjective(Objective):
    """Negative evidence lower bound, the mean over the batch of the sum over dimensions.

    The part of the divergence with no closed form is the mean over 20 precisions drawn from the
    posterior. They depend on nothing but the member's seed, the updates made and the posterior.
    """

    def __init__(self, name: str, components: int):
        super().__init__()
        self.name = name
        self.components = components
        self._seeds: Sequence[int] = ()
        self._updates = 0

    def head(self, covariance: Covariance) -> HeadKind:
        """Return the head of a gamma distribution over the precision."""
        require_diagonal(covariance, self.name)
        return "student_t"

    def attach(
        self, network: EnsembleNetwork, inputs: Tensor, targets: Tensor, seeds: Sequence[int]
    ) -> None:
        """Keep the seeds."""
        self._seeds = seeds

    def prior(self) -> tuple[Tensor, Tensor]:
        """Return the concentrations and rates of the prior's gammas, each [E, C, D]."""
        raise NotImplementedError

    def loss(self, prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E]."""
        assert isinstance(prediction, VariationalStudentT)
        bound = expected_log_prob(prediction, target) - self.divergence(prediction)
        return -bound.sum(-1).mean(-1)

    def divergence(self, posterior: VariationalStudentT) -> Tensor:
        """Return an unbiased estimate of the posterior's KL divergence from the prior, [E, B, D].

        Each call takes new draws.
        """
        log_precision = self._draw(posterior)
        return -_entropy(posterior) - self._log_prior(posterior.prior_logits, log_precision).mean(0)

    def get_extra_state(self) -> Tensor:
        """Return the number of updates made, for each member [E]."""
        # Kept as a plain number, because reading a tensor would stall a GPU at every update.
        return torch.full((len(self._seeds),), self._updates)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on after so many updates."""
        self._updates = int(state[0])

    def _draw(self, posterior: StudentT) -> Tensor:
        """Return logarithms of precisions [S, E, B, D], differentiable in the posterior."""
        standard = [
            torch._standard_gamma(
                concentration.expand(_DRAWS, *concentration.shape),
                derived_generator(seed, _PRECISIONS, self._updates, device=concentration.device),
            )
            for seed, concentration in zip(self._seeds, posterior.concentration, strict=True)
        ]
        self._updates += 1
        return torch.stack(standard, 1).log() - posterior.rate.log()

    def _log_prior(self, logits: Tensor, log_precision: Tensor) -> Tensor:
        """Return the prior's log-density of precisions given as logarithms, [S, E, B, D]."""
        a, b = (parameter.mT for parameter in self.prior())
        weights = logits.log_softmax(-1).transpose(1, 2)
        constant = weights + (a * b.log() - torch.lgamma(a)).unsqueeze(2)
        # The rest of a gamma's log-density is a product of (log λ, λ) and (a - 1, -b). The least b
        # is taken out of the sum: in float32 λb may be so large that the rest drowns in it.
        least = b.amin(-1, keepdim=True).detach()
        natural = torch.stack((a - 1, least - b), 2)
        precision = log_precision.exp()
        statistics = torch.stack((log_precision, precision), -1).transpose(2, 3)
        members, dimensions = constant.shape[:2]
        constant, natural = constant.flatten(0, 1), natural.flatten(0, 1)
        # One draw at a time: all S × E × B × D × C numbers at once are more than caches hold.
        density = torch.stack(
            [
                torch.baddbmm(constant, draw, natural).logsumexp(-1)
                for draw in statistics.flatten(1, 2)
            ]
        )
        return density.reshape(_DRAWS, members, dimensions, -1).mT - least.mT * precision


class XVAMP(VariationalObjective):
    """The prior's gammas are the network's own answers at 100 pseudo-inputs, for each member.

    The pseudo-inputs are training inputs, each member's drawn without replacement; fewer of them
    than 100 are taken in turn, which weighs the same gammas several times. They stay as they are
    (xvamp), or are trained (xvamp_star).
    """

    pseudo_inputs: Tensor

    def __init__(self, trainable: bool):
        super().__init__("xvamp_star" if trainable else "xvamp", _COMPONENTS)
        self.trainable = trainable

    def attach(
        self, network: EnsembleNetwork, inputs: Tensor, targets: Tensor, seeds: Sequence[int]
    ) -> None:
        """Draw the pseudo-inputs [E, C, I]."""
        super().attach(network, inputs, targets, seeds)
        turns = torch.arange(self.components) % len(inputs)
        rows = torch.stack(
            [
                torch.randperm(len(inputs), generator=derived_generator(seed, _PRIOR))[turns]
                for seed in seeds
            ]
        )
        pseudo_inputs = inputs[rows.to(inputs.device)]
        if self.trainable:
            self.pseudo_inputs = nn.Parameter(pseudo_inputs)
        else:
            self.register_buffer("pseudo_inputs", pseudo_inputs)
        # A method, not the network: that would become a part of this module.
        self._predict: Callable[[Tensor], Distribution] = network.forward

    def prior(self) -> tuple[Tensor, Tensor]:
        """Return the gammas that the network predicts at the pseudo-inputs, with gradients."""
        answer = self._predict(self.pseudo_inputs)
        assert isinstance(answer, StudentT)
        return answer.concentration, answer.rate


class VBEM(VariationalObjective):
    """The prior's gammas are parameters.

    Either a fixed grid of 144 (vbem), or 100 for each member and target that are trained from
    random ones on (vbem_star).
    """

    gammas: Tensor

    def __init__(self, trainable: bool):
        name, components = ("vbem_star", _COMPONENTS) if trainable else ("vbem", len(_GRID) ** 2)
        super().__init__(name, components)
        self.trainable = trainable

    def attach(
        self, network: EnsembleNetwork, inputs: Tensor, targets: Tensor, seeds: Sequence[int]
    ) -> None:
        """Lay out the grid, or draw the raw parameters, [E, 2, C, D]."""
        super().attach(network, inputs, targets, seeds)
        shape = (2, self.components, targets.shape[1])
        if self.trainable:
            uniform = [
                torch.rand(shape, generator=derived_generator(seed, _PRIOR)) for seed in seeds
            ]
            self.gammas = nn.Parameter(_RAW_BOUND * (2 * torch.stack(uniform).to(targets) - 1))
        else:
            values = torch.tensor(_GRID).to(targets)
            grid = torch.cartesian_prod(values, values).T.unsqueeze(-1)
            gammas = grid.expand(network.members, *shape)
            self.register_buffer("gammas", gammas, persistent=False)

    def prior(self) -> tuple[Tensor, Tensor]:
        """Return the grid, or what the raw parameters stand for."""
        gammas = softplus(self.gammas) + _MIN_PARAMETER if self.trainable else self.gammas
        return gammas[:, 0], gammas[:, 1]


def expected_log_prob(posterior: StudentT, value: Tensor) -> Tensor:
    """Return the mean Gaussian log-density of ``value`` over the precision's posterior.

    Of each dimension; all [..., D].
    """
    a, b = posterior.concentration, posterior.rate
    log_precision = torch.digamma(a) - b.log()
    squared_error = (value - posterior.mean).square()
    return 0.5 * (log_precision - math.log(2 * math.pi) - a / b * squared_error)


def _entropy(posterior: StudentT) -> Tensor:
    a, b = posterior.concentration, posterior.rate
    return a - b.log() + torch.lgamma(a) + (1 - a) * torch.digamma(a)
