"""Negative log-likelihood: plain, weighted by the predicted variance (β-NLL), of Student's t."""

from torch import Tensor

from dynlearn.config.choices import Covariance
from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.distributions.mixture import Distribution
from dynlearn.models.heads import HeadKind
from dynlearn.objectives.objective import Objective, require_diagonal
from dynlearn.objectives.weighted_losses import weighted_nll


class NLL(Objective):
    """Negative log-likelihood of Gaussians with diagonal or full covariance."""

    name = "nll"

    def head(self, covariance: Covariance) -> HeadKind:
        """Return the head of a learned variance or Cholesky factor."""
        return "scale_tril" if covariance == "full" else "variance"

    def loss(self, prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E], the mean over the batch."""
        if isinstance(prediction, DiagonalGaussian):
            return weighted_nll(prediction, target, 0.0).mean(-1)
        return -prediction.log_prob(target).mean(-1)


class BetaNLL(NLL):
    """β-NLL: the NLL's gradient times the predicted variance to the power β.

    β = 0 is plain NLL; β = 1 gives the mean the gradient of the squared error. On a diagonal the
    weight is per dimension, before the sum over dimensions (Seitzer et al. 2022, equation 5). With
    full covariance the gradients are ``Σ^β ∂μ`` and ``Σ^{β/2} ∂Σ Σ^{β/2}``: both become the
    diagonal form where Σ is diagonal.
    """

    name = "beta_nll"

    def __init__(self, beta: float):
        super().__init__()
        self.beta = beta

    def describe(self) -> str:
        """Return the name and β."""
        return f"{self.name}, β = {self.beta:g}"

    def loss(self, prediction: Distribution, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E], the mean over the batch.

        With full covariance its value is the plain NLL; only the gradient is weighted.
        """
        assert isinstance(prediction, DiagonalGaussian | FullGaussian)
        return weighted_nll(prediction, target, self.beta).mean(-1)


class StudentTNLL(NLL):
    """Negative log-likelihood of a Student's t in each dimension (Detlefsen et al. 2019).

    The network says how sure it is of the precision that it predicts, and outliers pull less.
    """

    name = "student_t"

    def head(self, covariance: Covariance) -> HeadKind:
        """Return the head of a gamma distribution over the precision."""
        require_diagonal(covariance, self.name)
        return "student_t"
