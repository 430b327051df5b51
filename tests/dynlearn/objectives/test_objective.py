from typing import get_args

import pytest

from dynlearn.config import TrainConfig
from dynlearn.config.choices import ObjectiveName
from dynlearn.errors import InvalidInput
from dynlearn.objectives import MSE, NLL, BetaNLL, MomentMatching, Objective, make_objective


def _make(**options: object) -> Objective:
    return make_objective(TrainConfig(dataset="d", model="m", **options))


@pytest.mark.parametrize(
    ("name", "kind", "head"),
    [
        ("beta_nll", BetaNLL, "variance"),
        ("nll", NLL, "variance"),
        ("mse", MSE, "mean"),
        ("moment_matching", MomentMatching, "std"),
    ],
)
def test_objectives_by_name(name: str, kind: type, head: str) -> None:
    objective = _make(objective=name)
    assert type(objective) is kind
    assert objective.head("diagonal") == head


@pytest.mark.parametrize(("given", "beta"), [({}, 0.5), ({"beta": 0.0}, 0.0), ({"beta": 1.0}, 1.0)])
def test_beta_is_one_half_unless_told(given: dict[str, float], beta: float) -> None:
    objective = _make(**given)
    assert isinstance(objective, BetaNLL)
    assert objective.beta == beta


@pytest.mark.parametrize("name", get_args(ObjectiveName))
def test_every_name_has_an_objective_with_a_head_or_a_reason_for_none(name: str) -> None:
    objective = _make(objective=name)
    assert objective.head("diagonal") in {"mean", "variance", "std", "student_t"}
    if name in {"nll", "beta_nll", "trust_region_nll", "trustable"}:
        assert objective.head("full") == "scale_tril"
    else:
        with pytest.raises(InvalidInput, match=f"expected a diagonal covariance with {name}"):
            objective.head("full")
    assert (objective.components > 0) == (name.removesuffix("_star") in {"xvamp", "vbem"})
