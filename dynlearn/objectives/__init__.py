"""How to fit an ensemble: objectives turn predictions, targets and sample ids into losses.

Add one by writing an `Objective` and naming it in `make_objective`.
"""

import math
from collections.abc import Callable
from typing import Any

from dynlearn.config import TrainConfig
from dynlearn.config.choices import ObjectiveName
from dynlearn.objectives.likelihood import NLL, BetaNLL, StudentTNLL
from dynlearn.objectives.moments import MSE, MomentMatching
from dynlearn.objectives.objective import Objective
from dynlearn.objectives.trust_region_nll import TrustRegionNLL
from dynlearn.objectives.trustable import Trustable
from dynlearn.objectives.variational import VBEM, XVAMP
from dynlearn.trust_region import TrustRegion

__all__ = [
    "MSE",
    "NLL",
    "VBEM",
    "XVAMP",
    "BetaNLL",
    "MomentMatching",
    "Objective",
    "StudentTNLL",
    "TrustRegionNLL",
    "Trustable",
    "make_objective",
]

_OBJECTIVES: dict[ObjectiveName, Callable[[TrainConfig], Objective]] = {
    "nll": lambda config: NLL(),
    "beta_nll": lambda config: BetaNLL(0.5 if config.beta is None else config.beta),
    "mse": lambda config: MSE(),
    "moment_matching": lambda config: MomentMatching(),
    "student_t": lambda config: StudentTNLL(),
    "xvamp": lambda config: XVAMP(trainable=False),
    "xvamp_star": lambda config: XVAMP(trainable=True),
    "vbem": lambda config: VBEM(trainable=False),
    "vbem_star": lambda config: VBEM(trainable=True),
    "trust_region_nll": lambda config: TrustRegionNLL(**_trust_region_options(config)),
    "trustable": lambda config: Trustable(
        **_trust_region_options(config),
        natural_step=config.natural_step,
        regression_metric=config.regression_metric,
        beta=config.beta or 0.0,
    ),
}


def make_objective(config: TrainConfig) -> Objective:
    """Return the objective that a configuration names."""
    return _OBJECTIVES[config.objective](config)


def _trust_region_options(config: TrainConfig) -> dict[str, Any]:
    mean_bound, covariance_bound = (
        math.inf if bound is None else bound
        for bound in (config.mean_bound, config.covariance_bound)
    )
    return {
        "region": TrustRegion(config.trust_region, mean_bound, covariance_bound),
        "refresh_epochs": config.refresh_epochs,
        "old_distributions": config.old_distributions,
        "member_limit_gib": config.memory_limit_gib / config.members,
    }
