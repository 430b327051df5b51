from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from dynlearn.data.episodes import EpisodeTable
from dynlearn.evaluation import evaluate
from dynlearn.evaluation.figures import draw_figures, panel_grid
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.task import Columns

HISTORY = [
    {
        "update": update,
        "train_nll": 3 - update / 1000,
        "train_rmse": 1 / update,
        "validation_nll": 3.2 - update / 1000,
        "validation_rmse": 1.2 / update,
    }
    for update in range(500, 4000, 500)
]


def _draw(
    folder: Path,
    model: DynamicsModel,
    table: EpisodeTable,
    history: list[dict[str, float]] = HISTORY,
    focus: tuple[int, ...] = (2,),
) -> list[str]:
    names = tuple(f"column {c}" for c in range(model.spec.observation_size))
    columns = Columns(names, focus)
    evaluation = evaluate(model, table, columns, horizon=10, seed=0)
    return draw_figures(evaluation, history, columns, folder)


def _check_drawn(folder: Path, names: list[str]) -> None:
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    for name in names:
        pixels = matplotlib.image.imread(folder / name)
        assert min(pixels.shape[:2]) > 250
        grey = pixels[..., :3].mean(-1)
        assert 0.01 < np.mean(grey < 0.9) < 0.6, f"{name} is empty or full"


def test_figures_of_a_full_state(
    tmp_path: Path,
    calm_model: Callable[..., DynamicsModel],
    sample_episodes: Callable[..., EpisodeTable],
) -> None:
    model = calm_model()
    names = _draw(tmp_path, model, sample_episodes(model, 20, 15))
    assert names == ["calibration.png", "open_loop.png", "error_by_horizon.png", "training.png"]
    _check_drawn(tmp_path, names)


def test_figures_of_some_columns_without_a_history(
    tmp_path: Path,
    make_model: Callable[..., DynamicsModel],
    sample_episodes: Callable[..., EpisodeTable],
) -> None:
    model = make_model(target_columns=(1,))
    names = _draw(tmp_path, model, sample_episodes(model, 3, 15), history=[])
    assert names == ["calibration.png", "one_step.png"]
    _check_drawn(tmp_path, names)


@pytest.mark.parametrize("observations", [1, 8])
@pytest.mark.parametrize("steps", [1, 15])
def test_figures_of_few_and_many_columns_and_steps(
    tmp_path: Path,
    make_model: Callable[..., DynamicsModel],
    sample_episodes: Callable[..., EpisodeTable],
    observations: int,
    steps: int,
) -> None:
    model = make_model(observations=observations)
    names = _draw(tmp_path, model, sample_episodes(model, 2, steps), HISTORY[:1], focus=())
    _check_drawn(tmp_path, names)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (4, 2), (6, 2)])
def test_a_grid_has_a_panel_for_each_and_three_in_a_row(count: int, rows: int) -> None:
    figure, panels = panel_grid(count)
    assert len(panels) == count
    assert sum(axes.axison for axes in figure.axes) == count
    assert figure.get_size_inches()[1] == pytest.approx(2.8 * rows)
