"""The model card: what a model is, how it was made and how good it is, for people and for tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from dynlearn.evaluation.figures import draw_figures
from dynlearn.evaluation.measures import Evaluation, Metrics
from dynlearn.models.heads import HeadKind
from dynlearn.models.spec import ModelSpec
from dynlearn.storage.files import write_bytes, write_json
from dynlearn.task import Columns

METRICS_FILE = "metrics.json"
_CAPTIONS = {
    "open_loop.png": "A held-out episode: real values beside the imagined mean and 5% to 95% band, "
    "from one start state under the real actions.",
    "one_step.png": "One-step predictions along a held-out episode with 90% bands.",
    "error_by_horizon.png": "Open-loop error by steps ahead, beside predicting no change.",
    "calibration.png": "Share of held-out values inside the predicted central interval of each "
    "probability, thin lines for single columns, and inside the ellipsoid of the predicted "
    "covariance, all columns at once.",
    "training.png": "NLL and RMSE of training and validation.",
}
_EACH_MEMBER: dict[HeadKind, str] = {
    "mean": "a mean; the variances are constants measured on validation data",
    "variance": "a mean and variances",
    "std": "a mean and standard deviations",
    "scale_tril": "a mean and the Cholesky factor of a full covariance",
    "student_t": "a Student's t for each column; rollouts and intervals are those of the Gaussian "
    "with its mean and variance",
}


def write_report(
    folder: Path,
    name: str,
    spec: ModelSpec,
    made: Mapping[str, object],
    evaluation: Evaluation,
    history: list[dict[str, float]],
    columns: Columns,
) -> None:
    """Write ``metrics.json``, ``figures/`` and the model card ``README.md`` into a folder.

    Args:
        folder: exists.
        name: the model's name.
        spec: the model's spec.
        made: how it was made, as lines of the card: "environment", "dataset" and any others.
        evaluation: on held-out episodes.
        history: of the training run.
        columns: the observation columns.
    """
    write_json(folder / METRICS_FILE, evaluation.metrics.model_dump(mode="json"))
    (folder / "figures").mkdir()
    figures = draw_figures(evaluation, history, columns, folder / "figures")
    card = _card(name, spec, made, evaluation.metrics, figures)
    write_bytes(folder / "README.md", card.encode())


def write_unmeasured(folder: Path, name: str, made: Mapping[str, object], reason: str) -> None:
    """Write a model card without any figures, which could not be had, for a reason."""
    lines = [f"# {name}", "", f"This model could not be evaluated: {reason}", "", *_table(made)]
    write_bytes(folder / "README.md", "\n".join([*lines, ""]).encode())


def _card(
    name: str,
    spec: ModelSpec,
    made: Mapping[str, object],
    metrics: Metrics,
    figures: list[str],
) -> str:
    split = spec.separate_networks and spec.head != "mean"
    facts = {
        **made,
        "predicts": ", ".join(metrics.columns),
        "each member gives": _EACH_MEMBER[spec.head],
        "network": f"{spec.members} members, {' × '.join(map(str, spec.hidden))}, "
        f"{spec.activation}" + (", once for the mean and once for the rest" if split else ""),
    }
    measures = {
        "NLL (nats, summed over columns)": metrics.nll,
        **(
            {}
            if metrics.nll_of_no_change is None
            else {"NLL of no change": metrics.nll_of_no_change}
        ),
        "RMSE": metrics.rmse,
        **{f"inside the {level} interval": share for level, share in metrics.coverage.items()},
        **{
            f"inside the {level} ellipsoid of all columns": share
            for level, share in metrics.joint_coverage.items()
        },
    }
    if metrics.reward_rmse is not None and metrics.rmse_of_mean_reward is not None:
        measures["RMSE of the learned reward"] = metrics.reward_rmse
        measures["RMSE of the mean reward"] = metrics.rmse_of_mean_reward
    errors = (
        f"| {column} | {metrics.rmse_per_column[column]:.4g} "
        f"| {metrics.rmse_of_no_change[column]:.4g} |"
        for column in metrics.columns
    )
    shown = (f"![{_CAPTIONS[file]}](figures/{file})\n\n*{_CAPTIONS[file]}*\n" for file in figures)
    return "\n".join(
        [
            _front_matter(name, made, metrics),
            f"# {name}",
            "",
            "A probabilistic ensemble dynamics model: next-state mean and covariance from an "
            "observation and an action.",
            "",
            *_table(facts),
            "",
            f"## On {metrics.episodes} held-out episodes ({metrics.transitions} transitions)",
            "",
            *_warning(metrics),
            "| measure | value |",
            "|---|---|",
            *(f"| {key} | {value:.4g} |" for key, value in measures.items()),
            "",
            "| column | RMSE, one step | RMSE of no change |",
            "|---|---|---|",
            *errors,
            "",
            *_open_loop_table(metrics),
            *shown,
        ]
    )


def _table(facts: Mapping[str, object]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]


def _warning(metrics: Metrics) -> list[str]:
    if not metrics.worse_than_no_change:
        return []
    return ["**Not to be used:** to predict that nothing changes is likelier to be right.", ""]


def _open_loop_table(metrics: Metrics) -> list[str]:
    steps = [step for step in (1, 5, 15, 50) if step <= len(metrics.open_loop_rmse)]
    if not steps:
        return []
    some = metrics.open_loop_episodes
    among = (
        ""
        if some in (None, metrics.episodes)
        else (f", in the {some} of {metrics.episodes} episodes that have so many steps")
    )
    return [
        f"Open loop over {', '.join(metrics.focus_columns)}{among}:",
        "",
        "| steps ahead | RMSE | RMSE of no change |",
        "|---|---|---|",
        *(
            f"| {step} | {metrics.open_loop_rmse[step - 1]:.4g} "
            f"| {metrics.open_loop_rmse_of_no_change[step - 1]:.4g} |"
            for step in steps
        ),
        "",
    ]


def _front_matter(name: str, made: Mapping[str, object], metrics: Metrics) -> str:
    """Return the YAML header of a Hugging Face model card with its evaluation results."""
    lines = [
        "---",
        "library_name: dynlearn",
        "tags:",
        "- reinforcement-learning",
        "- dynamics-model",
        "- model-based-rl",
        "model-index:",
        f"- name: {_quoted(name)}",
        "  results:",
        "  - task:",
        "      type: dynamics-prediction",
        "    dataset:",
        f"      name: {_quoted(made['dataset'])}",
        f"      type: {_quoted(made['environment'])}",
        "    metrics:",
    ]
    for kind, value in (("nll", metrics.nll), ("rmse", metrics.rmse)):
        # With "#" the point stays: YAML takes 1e-05 for a text.
        lines += [f"    - type: {kind}", f"      value: {value:#.6g}"]
    return "\n".join([*lines, "---", ""])


def _quoted(text: object) -> str:
    """Return a text as YAML that is taken for nothing else."""
    return json.dumps(str(text), ensure_ascii=False)
