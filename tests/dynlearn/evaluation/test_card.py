import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dynlearn.data.episodes import EpisodeTable
from dynlearn.evaluation import Metrics, evaluate, write_report, write_unmeasured
from dynlearn.evaluation.card import _card, _front_matter
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.task import Columns

COLUMNS = Columns(("agent_position", "agent_velocity", "object_position"), focus=(2,))
MADE = {"environment": "dynlearn/ObjectSlide-v1", "dataset": "slide", "objective": "β = 0.5"}
HISTORY = [
    {"update": 100, "train_nll": 2, "train_rmse": 2, "validation_nll": 2, "validation_rmse": 2},
    {"update": 200, "train_nll": 1, "train_rmse": 1, "validation_nll": 1, "validation_rmse": 1},
]


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory,
    calm_model: Callable[..., DynamicsModel],
    sample_episodes: Callable[..., EpisodeTable],
) -> tuple[Path, Metrics]:
    folder = tmp_path_factory.mktemp("report")
    model = calm_model()
    evaluation = evaluate(model, sample_episodes(model, 10, 20), COLUMNS, 15, 0)
    write_report(folder, "slide", model.spec, MADE, evaluation, HISTORY, COLUMNS)
    return folder, evaluation.metrics


def _header(card: str) -> dict[str, object]:
    opening, header, _ = card.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(header)


def test_the_metrics_are_saved(report: tuple[Path, Metrics]) -> None:
    folder, metrics = report
    assert Metrics.model_validate_json((folder / "metrics.json").read_text()) == metrics
    assert "NaN" not in (folder / "metrics.json").read_text()


def test_the_header_is_that_of_a_hugging_face_model_card(report: tuple[Path, Metrics]) -> None:
    folder, metrics = report
    header = _header((folder / "README.md").read_text())
    assert header["library_name"] == "dynlearn"
    (model,) = header["model-index"]
    assert model["name"] == "slide"
    (result,) = model["results"]
    assert result["task"] == {"type": "dynamics-prediction"}
    assert result["dataset"] == {"name": "slide", "type": "dynlearn/ObjectSlide-v1"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == pytest.approx({"nll": metrics.nll, "rmse": metrics.rmse}, rel=1e-5)


def test_every_figure_is_shown_with_a_caption_and_every_number_is_there(
    report: tuple[Path, Metrics],
) -> None:
    folder, metrics = report
    card = (folder / "README.md").read_text()
    shown = re.findall(r"!\[([^]]+)\]\(figures/([^)]+)\)", card)
    assert sorted(file for _, file in shown) == sorted(
        p.name for p in (folder / "figures").iterdir()
    )
    for value in (metrics.nll, metrics.rmse, metrics.coverage["90%"], metrics.open_loop_rmse[4]):
        assert f"| {value:.4g} |" in card
    assert "## On 10 held-out episodes (200 transitions)" in card
    for row in (
        "| environment | dynlearn/ObjectSlide-v1 |",
        "| network | 3 members, 8 × 8, tanh |",
    ):
        assert row in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} <= {3, 4}


def _metrics(nll: float, rmse: float) -> Metrics:
    return Metrics(
        episodes=1, transitions=1, columns=("x",), nll=nll, rmse=rmse, rmse_per_column={"x": rmse},
        rmse_of_no_change={"x": rmse}, coverage={},
    )  # fmt: skip


texts = st.one_of(
    st.sampled_from(
        ["123", "1.0", "true", "null", "no", "1e5", "s3://bucket/a b", 'say "x"', "a\\b"]
    ),
    st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
)


@given(
    name=texts,
    dataset=texts,
    nll=st.floats(-1e9, 1e9),
    rmse=st.one_of(st.sampled_from([0.0, 1e-5, 1e20, 3.0]), st.floats(0, 1e9)),
)
def test_the_header_is_yaml_whatever_the_names_and_numbers(
    name: str, dataset: str, nll: float, rmse: float
) -> None:
    made = {"dataset": dataset, "environment": name}
    (model,) = _header(_front_matter(name, made, _metrics(nll, rmse)))["model-index"]
    assert model["name"] == name
    (result,) = model["results"]
    assert result["dataset"] == {"name": dataset, "type": name}
    values = [metric["value"] for metric in result["metrics"]]
    assert all(isinstance(value, float) for value in values)
    assert values == pytest.approx([nll, rmse], rel=1e-5)
    assert json.dumps(values)


@pytest.mark.parametrize(("nll", "of_no_change", "warned"), [(3, 2, True), (2, 3, False)])
def test_a_model_worse_than_no_change_is_marked(
    nll: float, of_no_change: float, warned: bool, calm_model: Callable[..., DynamicsModel]
) -> None:
    metrics = _metrics(nll, 1).model_copy(update={"nll_of_no_change": of_no_change})
    card = _card("slide", calm_model().spec, MADE, metrics, [])
    assert ("**Not to be used:**" in card) == warned
    assert f"| NLL of no change | {of_no_change} |" in card


def test_a_model_without_figures_says_why(tmp_path: Path) -> None:
    write_unmeasured(tmp_path, "slide", MADE, "expected a finite NLL, got inf")
    card = (tmp_path / "README.md").read_text()
    assert "could not be evaluated: expected a finite NLL, got inf" in card
    assert "| environment | dynlearn/ObjectSlide-v1 |" in card
