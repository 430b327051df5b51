"""Negative log-likelihood of Student's t distributions."""

from dynlearn.config import Covariance
from dynlearn.heads import HeadKind
from dynlearn.objectives.likelihood import NLL
from dynlearn.objectives.moments import require_diagonal


class StudentTNLL(NLL):
    """Negative log-likelihood of a Student's t in each dimension (Detlefsen et al. 2019).

    The network says how sure it is of the precision that it predicts, and outliers pull less.
    """

    def head(self, covariance: Covariance) -> HeadKind:
        """Return the head of a gamma distribution over the precision."""
        require_diagonal(covariance, "student_t")
        return "student_t"
