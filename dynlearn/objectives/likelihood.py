"""Negative log-likelihood, plain and weighted by the predicted variance (β-NLL)."""

from torch import Tensor

from dynlearn.gaussian import DiagonalGaussian


class BetaNLL:
    """β-NLL: each dimension's NLL times its predicted variance to the power β, held constant.

    β = 0 is plain NLL; β = 1 gives the mean the gradient of the squared error. The weight is per
    dimension, before the sum over dimensions (Seitzer et al. 2022, equation 5).
    """

    learned_variance = True

    def __init__(self, beta: float):
        self.beta = beta

    def loss(self, prediction: DiagonalGaussian, target: Tensor, sample_ids: Tensor) -> Tensor:
        """Return each member's loss [E], the mean over the batch of the sum over dimensions."""
        nll = -prediction.log_prob_per_dimension(target)
        if self.beta > 0:
            nll = prediction.variance.detach().pow(self.beta) * nll
        return nll.sum(-1).mean(-1)
