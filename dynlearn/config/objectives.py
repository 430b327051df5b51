"""The settings of each objective: one model each, told apart by its name.

Every option of an objective is declared here and nowhere else. Outside they are flat, beside the
options of the training: `OPTIONS` says what there is, `gather` puts each where it belongs.
"""

from collections.abc import Iterable, Mapping
from inspect import get_annotations
from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo

from dynlearn.config.base import Config
from dynlearn.config.choices import TrustRegionMetric
from dynlearn.errors import nearest

Beta = Annotated[float, Field(ge=0, le=1, description="exponent of the variance weight")]


class NLLSettings(Config):
    """Of the negative log-likelihood."""

    name: Literal["nll"] = "nll"


class BetaNLLSettings(Config):
    """Of β-NLL."""

    name: Literal["beta_nll"] = "beta_nll"
    beta: Beta = 0.5


class MSESettings(Config):
    """Of the squared error."""

    name: Literal["mse"] = "mse"


class MomentMatchingSettings(Config):
    """Of the squared errors of mean and standard deviation."""

    name: Literal["moment_matching"] = "moment_matching"


class StudentTSettings(Config):
    """Of the negative log-likelihood of Student's t."""

    name: Literal["student_t"] = "student_t"


class XVAMPSettings(Config):
    """Of xVAMP; with a star its prior is trained too."""

    name: Literal["xvamp", "xvamp_star"] = "xvamp"


class VBEMSettings(Config):
    """Of VBEM; with a star its prior is trained too."""

    name: Literal["vbem", "vbem_star"] = "vbem"


class _TrustRegionSettings(Config):
    trust_region: TrustRegionMetric = Field(
        "kl", description="metric of the bounds of trustable and trust_region_nll"
    )
    mean_bound: float | None = Field(
        None, gt=0, description="how far a mean may move in an epoch, a dimension; absent: any way"
    )
    covariance_bound: float | None = Field(
        0.1,
        gt=0,
        description="how far a covariance may move in an epoch, a dimension; none: any way",
    )
    refresh_epochs: int = Field(
        1, ge=1, description="epochs between refreshes of the old distributions"
    )
    old_distributions: Literal["samples", "snapshot"] = Field(
        "samples", description="kept for every sample, or as a snapshot of the network"
    )
    memory_limit_gib: float = Field(
        4.0, gt=0, description="most memory for all old distributions, in GiB"
    )


class TrustRegionNLLSettings(_TrustRegionSettings):
    """Of the negative log-likelihood within trust regions."""

    name: Literal["trust_region_nll"] = "trust_region_nll"


class TrustableSettings(_TrustRegionSettings):
    """Of Trustable."""

    name: Literal["trustable"] = "trustable"
    beta: Beta = 0.0
    natural_step: float = Field(0.1, gt=0, le=1, description="step of trustable's natural gradient")
    regression_metric: Literal["kl", "w2"] = Field(
        "kl", description="what trustable's network is fitted to its targets in"
    )

    @model_validator(mode="after")
    def _beta_needs_kl(self) -> Self:
        if self.beta and self.regression_metric == "w2":
            raise ValueError(
                f"beta: expected no such option with regression_metric w2, got {self.beta}; "
                "leave it out, or take kl"
            )
        return self


ObjectiveSettings = (
    BetaNLLSettings
    | NLLSettings
    | MSESettings
    | MomentMatchingSettings
    | StudentTSettings
    | XVAMPSettings
    | VBEMSettings
    | TrustRegionNLLSettings
    | TrustableSettings
)

SETTINGS: dict[str, type[Config]] = {
    name: kind
    for kind in get_args(ObjectiveSettings)
    for name in get_args(kind.model_fields["name"].annotation)
}
"""The settings of each objective, by its name."""


def _declared() -> dict[str, dict[str, FieldInfo]]:
    """Return each option's declarations by objective, those of one objective's own class first."""
    declared: dict[str, dict[str, FieldInfo]] = {}
    for is_own in (True, False):
        for objective, kind in SETTINGS.items():
            for option, field in kind.model_fields.items():
                if option != "name" and (option in get_annotations(kind)) == is_own:
                    declared.setdefault(option, {})[objective] = field
    return declared


_DECLARED = _declared()


def _flat(objectives: Mapping[str, FieldInfo]) -> FieldInfo:
    """Return an option as it is outside, where it may be of several objectives."""
    defaults = {objective: field.default for objective, field in objectives.items()}
    field = next(iter(objectives.values()))
    if len(set(defaults.values())) == 1:
        return field
    absent = ", ".join(f"{value:g} with {objective}" for objective, value in defaults.items())
    return FieldInfo(
        annotation=field.annotation,
        default=None,
        description=f"{field.description}; absent: {absent}",
    )


OPTIONS: dict[str, FieldInfo] = {name: _flat(having) for name, having in _DECLARED.items()}
"""The options of all objectives, by name."""


def gather(objective: Any, options: Mapping[str, Any]) -> Any:
    """Return an objective's settings made from its name, or from settings, and flat options.

    Options of other objectives are passed over where they say what goes without saying, as saved
    configurations do.

    Raises:
        ValueError: there is no such objective, or an option would do nothing.
    """
    settings = objective.model_dump() if isinstance(objective, Config) else objective
    if isinstance(settings, str):
        settings = {"name": settings}
    if not isinstance(settings, Mapping):
        return objective
    name = settings.get("name")
    if name not in SETTINGS:
        raise ValueError(
            f"objective: expected the name of one, got {name!r}; {nearest(str(name), SETTINGS)}"
        )
    own = {**settings}
    for option, value in options.items():
        field = _DECLARED[option].get(name)
        if field is None:
            _require_idle(option, value, name)
        elif value is not None or NoneType in get_args(field.annotation):
            own[option] = value
    return own


def _require_idle(option: str, value: Any, objective: str) -> None:
    defaults: Iterable[Any] = (field.default for field in _DECLARED[option].values())
    if value not in defaults and not (value is None and OPTIONS[option].default is None):
        raise ValueError(
            f"{option}: expected no such option with objective {objective}, got {value}; leave it "
            f"out, or take {' or '.join(_DECLARED[option])}"
        )
