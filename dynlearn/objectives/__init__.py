"""How to fit an ensemble: objectives turn predictions, targets and sample ids into losses.

Add one by writing an `Objective`, and its settings in `dynlearn.config.objectives`; name both here.
"""

from collections.abc import Callable
from typing import Any

from dynlearn.config import Config, TrainConfig
from dynlearn.config.objectives import (
    BetaNLLSettings,
    MomentMatchingSettings,
    MSESettings,
    NLLSettings,
    StudentTSettings,
    TrustableSettings,
    TrustRegionNLLSettings,
    VBEMSettings,
    XVAMPSettings,
)
from dynlearn.objectives.likelihood import NLL, BetaNLL, StudentTNLL
from dynlearn.objectives.moments import MSE, MomentMatching
from dynlearn.objectives.objective import Objective
from dynlearn.objectives.trust_region_nll import TrustRegionNLL
from dynlearn.objectives.trustable import Trustable
from dynlearn.objectives.variational import VBEM, XVAMP

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

_OBJECTIVES: dict[type[Config], Callable[[Any, int], Objective]] = {
    NLLSettings: lambda settings, members: NLL(),
    BetaNLLSettings: lambda settings, members: BetaNLL(settings.beta),
    MSESettings: lambda settings, members: MSE(),
    MomentMatchingSettings: lambda settings, members: MomentMatching(),
    StudentTSettings: lambda settings, members: StudentTNLL(),
    XVAMPSettings: lambda settings, members: XVAMP(trainable=settings.name == "xvamp_star"),
    VBEMSettings: lambda settings, members: VBEM(trainable=settings.name == "vbem_star"),
    TrustRegionNLLSettings: TrustRegionNLL,
    TrustableSettings: Trustable,
}


def make_objective(config: TrainConfig) -> Objective:
    """Return the objective that a configuration names."""
    return _OBJECTIVES[type(config.objective)](config.objective, config.members)
