"""Fits of the synthetic sets: kept and resumed, judged, told of, drawn."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import synthetic
from benchmarks.data.synthetic import NAMES, load, score
from benchmarks.synthetic_fits import job as jobs
from benchmarks.synthetic_fits.job import Outcome, Training, run
from benchmarks.synthetic_fits.recipes import OBJECTIVES, RECIPES, Effort, Job
from dynlearn.config.objectives import TrustableSettings
from dynlearn.errors import InvalidInput

SETS = "nn_constant", "sine", "spiral_k5"


def short(name: str, objective: str = "trustable", seeds: int = 2) -> Job:
    """Return a job of few updates on small networks."""
    recipe = replace(RECIPES[name], options={**RECIPES[name].options, "hidden": (8,)})
    return Job(name, recipe, Effort(6, seeds, (objective,)), objective, seed=0)


@pytest.fixture(autouse=True)
def judged_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_TIMES", 3)


def test_every_recipe_makes_a_configuration() -> None:
    problems = set()
    for name, recipe in RECIPES.items():
        problems.add(recipe.problem)
        for effort in recipe.efforts.values():
            for objective in effort.objectives:
                job = Job(name, recipe, effort, objective, 0)
                assert job.config.members == effort.seeds
                assert job.config.max_updates == effort.updates
                assert job.description.endswith(f"{effort.seeds} seeds.")
    assert problems == set(NAMES)


def test_trustable_is_set_alike_everywhere() -> None:
    options = OBJECTIVES["trustable"]
    assert options == {"objective": "trustable"}
    found = {short(name).config.objective for name in RECIPES}
    assert found == {TrustableSettings()}


def test_a_file_name_changes_with_every_option() -> None:
    job = short("sine")
    others = [
        replace(job, seed=1),
        replace(job, effort=replace(job.effort, updates=7)),
        replace(job, recipe=replace(job.recipe, standardised=True)),
        replace(job, objective="beta=1"),
    ]
    assert len({each.file_name for each in [job, *others]}) == 5
    assert short("sine").file_name == job.file_name


@pytest.mark.parametrize("name", SETS)
def test_a_fit_is_judged_in_original_units(name: str) -> None:
    training = Training(short(name))
    while not training.is_done:
        training.advance()
    outcome, problem = training.outcome(), load(RECIPES[name].problem)
    assert outcome.updates.tolist() == [2, 4, 6]
    for metric, values in score(training.predict(problem.test.inputs), problem.test).items():
        np.testing.assert_array_equal(outcome.last(metric), values)
    residuals = problem.test.targets - training.predict(problem.test.inputs).mean.numpy()
    np.testing.assert_array_equal(outcome.residuals, residuals)
    rmse = np.sqrt(np.square(residuals).mean((1, 2)))
    np.testing.assert_allclose(outcome.last("rmse"), rmse)
    median = int(np.argsort(outcome.last("nll"))[0])
    expected = training.predict(outcome.grid[:, None]).mean[median]
    torch.testing.assert_close(outcome.fit.mean, expected)
    assert outcome.fit.variance.shape == expected.shape


def test_unstandardised_inputs_reach_the_network_as_they_are() -> None:
    training = Training(short("sine", "beta=0"))
    inputs = np.array([[0.0], [12.0]])
    direct = training.network(torch.from_numpy(inputs).float())
    torch.testing.assert_close(training.predict(inputs).mean.float(), direct.mean)


def test_a_fit_cut_off_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = short("nn_constant")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    told: list[int] = []
    path = run(job, whole, told.append)
    assert told == [0, 2, 2, 2]

    save, saved = Training.save, 0

    def save_twice(self: Training, file: Path) -> None:
        nonlocal saved
        if saved == 2:
            raise KeyboardInterrupt
        save(self, file)
        saved += 1

    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", save_twice)
        with pytest.raises(KeyboardInterrupt):
            run(job, cut, told.append)
    assert [each.suffix for each in cut.iterdir()] == [".safetensors"]
    told.clear()
    resumed = run(job, cut, told.append)
    assert told == [4, 2]
    expected, found = vars(Outcome.load(path)), vars(Outcome.load(resumed))
    curves = expected.pop("curves"), found.pop("curves")
    for one, other in zip((expected, curves[0]), (found, curves[1]), strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])
    told.clear()
    assert run(job, cut, told.append) == resumed
    assert told == [6]


def test_wins() -> None:
    nll = {
        "nll": np.array([1.0, 2.0, np.nan, np.nan]),
        "mse": np.zeros(4),
        "beta=1": np.full(4, 5.0),
        "trustable": np.array([2.0, 1.0, 1.0, np.nan]),
    }
    expected = "Of 4 seeds, Trustable's NLL is below that of nll in 2, of beta=1 in 3."
    assert synthetic.wins(nll) == expected
    assert synthetic.wins({"nll": np.zeros(2)}) == ""
    assert synthetic.wins({"trustable": np.zeros(2)}) == ""


def test_the_whole_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    effort = Effort(40, 2, ("nll", "trustable"))
    small = {
        name: replace(
            RECIPES[name],
            options={**RECIPES[name].options, "hidden": (8,)},
            efforts={"small": effort},
        )
        for name in ("nn_constant", "spiral_k5")
    }
    monkeypatch.setattr(synthetic, "RECIPES", small)
    command = ["synthetic", "--sets", *small, "--out", str(tmp_path), "--workers", "2"]
    monkeypatch.setattr(sys, "argv", command)
    synthetic.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["benchmark"] == "synthetic"
    assert last["figures"]["spiral_k5_trustable_finite_seeds"] == 2
    assert last["figures"]["nn_constant_oracle_nll"] == pytest.approx(-0.336, abs=1e-3)
    results = (tmp_path / "synthetic.md").read_text()
    for name in small:
        assert f"## {name}" in results
        assert (tmp_path / name / "fits.png").stat().st_size > 10_000
    assert "Of 2 seeds, Trustable's NLL is below that of nll in" in results
    assert str(tmp_path) not in results
    assert (tmp_path / "nn_constant" / "sampling.png").exists()
    assert len(list((tmp_path / "fits").glob("*.npz"))) == 4


def test_an_objective_that_no_chosen_set_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["synthetic", "--sets", "sine", "--objectives", "trustable"])
    with pytest.raises(InvalidInput, match="expected an objective that sine has at the small"):
        synthetic.main()


def test_no_workers_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["synthetic", "--workers", "0"])
    with pytest.raises(SystemExit) as raised:
        synthetic.parse()
    assert raised.value.code == 2
    assert "--workers: expected at least 1, got 0" in capsys.readouterr().err
