from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from dynlearn.data.episodes import EpisodeTable
from dynlearn.errors import InvalidInput, NumericalFailure
from dynlearn.evaluation import Evaluation, Metrics, evaluate
from dynlearn.evaluation.measures import COVERAGE_LEVELS, CURVE_LEVELS
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.task import Columns

MakeModel = Callable[..., DynamicsModel]
SampleEpisodes = Callable[..., EpisodeTable]
NAMES = ("x", "y", "z")


def _evaluate(model: DynamicsModel, table: EpisodeTable, **options: object) -> Evaluation:
    arguments = {"columns": Columns(NAMES), "horizon": 4, "seed": 0, **options}
    return evaluate(model, table, **arguments)


def test_a_model_that_is_the_truth_is_calibrated(
    calm_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = calm_model()
    evaluation = _evaluate(model, sample_episodes(model, 500, 20))
    metrics = evaluation.metrics
    assert (metrics.episodes, metrics.transitions) == (500, 10_000)
    for level in COVERAGE_LEVELS:
        assert metrics.coverage[f"{level:.0%}"] == pytest.approx(level, abs=0.01)
    expected = np.broadcast_to(np.array(CURVE_LEVELS)[:, None], (len(CURVE_LEVELS), 3))
    np.testing.assert_allclose(evaluation.calibration, expected, atol=0.02)
    # The error is the predictive standard deviation, and the NLL the entropy: both are known.
    _, _, std = evaluation.one_step
    prediction = model.predict(*_rows(sample_episodes(model, 500, 20)))
    assert metrics.rmse == pytest.approx(float(prediction.variance.mean().sqrt()), rel=0.02)
    draws = model.sample(*_rows(sample_episodes(model, 500, 20)), seed=7)[0]
    assert metrics.nll == pytest.approx(-float(prediction.log_prob(draws).mean()), abs=0.03)
    assert std.shape == (20, 3)


def _rows(table: EpisodeTable) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([e.observations[:-1] for e in table]), table.actions


@pytest.mark.parametrize("targets", [(0, 1, 2), (2, 0)])
def test_one_step_measures_are_those_of_a_plain_loop(
    make_model: MakeModel,
    sample_episodes: SampleEpisodes,
    reference: Callable[..., tuple[np.ndarray, np.ndarray]],
    targets: tuple[int, ...],
) -> None:
    model = make_model(target_columns=targets, absolute_columns=(0,))
    table = sample_episodes(make_model(seed=1, target_columns=targets), 3, 5)
    errors, changes, nlls, inside = [], [], [], {level: [] for level in COVERAGE_LEVELS}
    for episode in table:
        for step in range(len(episode)):
            now, action = episode.observations[step], episode.actions[step]
            real = episode.observations[step + 1][list(targets)].astype(float)
            members = [reference(model, member, now, action) for member in range(3)]
            means, covariances = (np.stack(part) for part in zip(*members, strict=True))
            stds = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
            errors.append(means.mean(0) - real)
            changes.append(now[list(targets)] - real)
            nlls.append(np.log(3) - logsumexp(stats.norm.logpdf(real, means, stds).sum(1)))
            probability = stats.norm.cdf(real, means, stds).mean(0)
            for level, found in inside.items():
                found.append((probability > 0.5 - level / 2) & (probability < 0.5 + level / 2))
    metrics = _evaluate(model, table).metrics
    names = [NAMES[column] for column in targets]
    assert metrics.columns == tuple(names)
    assert metrics.nll == pytest.approx(np.mean(nlls), rel=1e-4)
    assert metrics.rmse == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-4)
    by_column = np.sqrt(np.mean(np.square(errors), axis=0))
    assert metrics.rmse_per_column == pytest.approx(
        dict(zip(names, by_column, strict=True)), rel=1e-4
    )
    unmoved = np.sqrt(np.mean(np.square(changes), axis=0))
    assert metrics.rmse_of_no_change == pytest.approx(dict(zip(names, unmoved, strict=True)))
    nll = -stats.norm.logpdf(np.array(changes), 0, unmoved).sum(1).mean()
    assert metrics.nll_of_no_change == pytest.approx(nll)
    for level, found in inside.items():
        assert metrics.coverage[f"{level:.0%}"] == pytest.approx(np.mean(found))


def test_coverage_of_one_member_is_a_share_of_z_scores(
    calm_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = calm_model(members=1)
    table = sample_episodes(model, 20, 10)
    prediction = model.predict(*_rows(table))
    real = np.concatenate([episode.observations[1:] for episode in table])
    z = np.abs(real - prediction.mean.numpy()) / prediction.std.numpy()
    metrics = _evaluate(model, table).metrics
    for level in COVERAGE_LEVELS:
        expected = np.mean(z <= stats.norm.ppf(0.5 + level / 2))
        assert metrics.coverage[f"{level:.0%}"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("factor", "sign"), [(0.3, -1), (3.0, 1)])
def test_coverage_tells_a_model_that_is_too_sure_from_one_that_is_too_shy(
    calm_model: MakeModel, sample_episodes: SampleEpisodes, factor: float, sign: int
) -> None:
    options = {"head": "mean", "members": 1}
    truth, model = calm_model(**options), calm_model(**options)
    model.regressor.network.residual_variance.mul_(factor**2)
    coverage = _evaluate(model, sample_episodes(truth, 50, 10)).metrics.coverage
    for level in COVERAGE_LEVELS:
        assert sign * (coverage[f"{level:.0%}"] - level) > 0.03


def test_open_loop_measures_are_over_the_focus(
    calm_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = calm_model()
    table = sample_episodes(model, 5, 8)
    evaluation = _evaluate(model, table, columns=Columns(NAMES, (2, 0)))
    assert evaluation.rollouts is not None
    metrics = evaluation.metrics
    assert metrics.focus_columns == ("z", "x")
    assert metrics.open_loop_rmse == evaluation.rollouts.rmse((2, 0))
    assert metrics.open_loop_rmse_of_no_change == evaluation.rollouts.rmse_of_no_change((2, 0))
    assert len(metrics.open_loop_rmse) == 4
    assert _evaluate(model, table).metrics.focus_columns == NAMES


def test_a_horizon_that_few_episodes_reach_is_told(
    calm_model: MakeModel, sample_episodes: SampleEpisodes, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the errors of the longest episodes alone would pass for those of all."""
    model = calm_model()
    short, long = sample_episodes(model, 3, 4), sample_episodes(model, 1, 12, seed=1)
    table = EpisodeTable.concatenate([short, long])
    few = _evaluate(model, table, horizon=10).metrics
    assert (few.open_loop_episodes, few.episodes, len(few.open_loop_rmse)) == (1, 4, 10)
    assert "open-loop errors are of 1 of 4 episodes, those of 10 steps or more" in caplog.text
    caplog.clear()
    assert _evaluate(model, table, horizon=4).metrics.open_loop_episodes == 4
    assert not caplog.records


def test_a_model_of_some_columns_has_no_open_loop(
    make_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = make_model(target_columns=(1,))
    evaluation = _evaluate(model, sample_episodes(model, 3, 5))
    assert evaluation.rollouts is None
    assert evaluation.metrics.open_loop_rmse == ()
    assert evaluation.metrics.focus_columns == ()


def test_the_first_episode_is_shown_step_by_step(
    calm_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = calm_model()
    table = sample_episodes(model, 2, 5)
    real, mean, std = _evaluate(model, table).one_step
    first = next(iter(table))
    np.testing.assert_allclose(real, first.observations[1:])
    prediction = model.predict(first.observations[:-1], first.actions)
    np.testing.assert_allclose(mean, prediction.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, prediction.std, rtol=1e-4)


def test_the_seed_determines_the_metrics(
    calm_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = calm_model()
    table = sample_episodes(model, 5, 8)
    first, again, other = (_evaluate(model, table, seed=seed).metrics for seed in (0, 0, 1))
    assert first == again
    assert first.open_loop_rmse != other.open_loop_rmse
    assert Metrics.model_validate_json(first.model_dump_json()) == first


def test_episodes_of_another_environment_are_refused(
    make_model: MakeModel, make_table: Callable[..., EpisodeTable], sample_episodes: SampleEpisodes
) -> None:
    model = make_model()
    with pytest.raises(InvalidInput, match="expected episodes of 3 observation columns, got 2"):
        _evaluate(model, make_table([3]))
    with pytest.raises(InvalidInput, match=r"action: expected shape \[rows, 2\], got \[3, 1\]"):
        _evaluate(model, make_table([3], observations=3))
    table = sample_episodes(model, 1, 5)
    with pytest.raises(InvalidInput, match="expected continuous actions, got discrete ones"):
        _evaluate(model, replace(table, actions=np.zeros(5, np.int64)))


def test_predictions_that_are_not_finite_are_an_error(
    make_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = make_model()
    table = sample_episodes(model, 2, 5)
    with torch.no_grad():
        model.regressor.network.perceptrons[0][-1].bias[0] = torch.nan
    with pytest.raises(NumericalFailure, match="expected a finite NLL, got nan"):
        _evaluate(model, table)


def test_rollouts_that_leave_the_finite_numbers_are_an_error(
    make_model: MakeModel, make_table: Callable[..., EpisodeTable]
) -> None:
    """Each step multiplies the state by a million: good for one step, not for ten."""
    model = make_model(hidden=(), members=1, head="mean")
    with torch.no_grad():
        for tensor in model.regressor.state_dict().values():
            tensor.copy_(torch.ones_like(tensor))
        model.regressor.network.perceptrons[0][-1].weight.fill_(1e6)
    with pytest.raises(NumericalFailure, match=r"expected finite rollouts .* shorten the horizon"):
        _evaluate(model, make_table([12], observations=3, actions=2), horizon=10)
