from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from dynlearn.data.episodes import EpisodeTable
from dynlearn.data.transitions import Transitions, cut_transitions
from dynlearn.distributions.gaussian import DiagonalGaussian, FullGaussian
from dynlearn.distributions.mixture import Prediction
from dynlearn.evaluation import evaluate
from dynlearn.evaluation import one_step as module
from dynlearn.evaluation.measures import CURVE_LEVELS
from dynlearn.evaluation.one_step import OneStep, one_step
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.task import Columns

MakeModel = Callable[..., DynamicsModel]
SampleEpisodes = Callable[..., EpisodeTable]
COLUMNS = Columns(("x", "y", "z"))


def _transitions(model: DynamicsModel, table: EpisodeTable) -> Transitions:
    return cut_transitions(table, model.spec.action_space)


@pytest.mark.parametrize("head", ["variance", "scale_tril"])
@pytest.mark.parametrize("targets", [(0, 1, 2), (2, 0)])
def test_every_part_is_that_of_scipy(
    make_model: MakeModel, sample_episodes: SampleEpisodes, head: str, targets: tuple[int, ...]
) -> None:
    model = make_model(head=head, target_columns=targets)
    transitions = _transitions(model, sample_episodes(make_model(seed=1), 3, 5))
    found = one_step(model, transitions)
    for row in range(15):
        answer = model.predict(
            transitions.observation[row : row + 1], transitions.action[row : row + 1]
        )
        means = answer.member_means[:, 0].double().numpy()
        covariances = answer.members.covariance[:, 0].double().numpy()
        real = transitions.next_observation[row, list(targets)].astype(float)
        pairs = list(zip(means, covariances, strict=True))
        log_probs = [stats.multivariate_normal.logpdf(real, m, c) for m, c in pairs]
        assert found.log_prob[row] == pytest.approx(logsumexp(log_probs) - np.log(3), rel=1e-4)
        mean = means.mean(0)
        covariance = covariances.mean(0) + np.cov(means.T, bias=True)
        np.testing.assert_allclose(found.mean[row], mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.std[row], np.sqrt(np.diag(covariance)), rtol=1e-4)
        distance = (real - mean) @ np.linalg.solve(covariance, real - mean)
        expected = stats.chi2.cdf(distance, len(targets))
        assert found.joint_probability[row] == pytest.approx(expected, abs=1e-4)
        columns = [stats.norm.cdf(real, m, np.sqrt(np.diag(c))) for m, c in pairs]
        np.testing.assert_allclose(found.probability[row], np.mean(columns, 0), atol=1e-4)


@pytest.mark.parametrize("room", [1, 4000])
def test_rows_are_as_many_at_a_time_as_their_matrices_have_room(
    make_model: MakeModel,
    sample_episodes: SampleEpisodes,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
) -> None:
    model = make_model(head="scale_tril")
    transitions = _transitions(model, sample_episodes(make_model(seed=1), 3, 5))
    whole = one_step(model, transitions)
    asked = []
    predict = DynamicsModel.predict

    def recording(self: DynamicsModel, observation: object, action: object) -> Prediction:
        asked.append(len(action))  # type: ignore[arg-type]
        return predict(self, observation, action)

    monkeypatch.setattr(DynamicsModel, "predict", recording)
    monkeypatch.setattr(module, "_MATRIX_BYTES", room)
    found = one_step(model, transitions)
    # Nine numbers of eight bytes, for each of three members and six times beside them.
    assert max(asked) == max(1, room // (8 * 9 * 9))
    assert sum(asked) == 15
    torch.testing.assert_close(found.log_prob, whole.log_prob, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.joint_probability, whole.joint_probability)


def test_the_truth_is_calibrated_jointly_and_a_blind_eye_for_correlation_is_seen(
    calm_model: MakeModel, sample_episodes: SampleEpisodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blind model has the same means and variances, hence the same coverage of columns."""
    model = calm_model(head="scale_tril", members=1)
    with torch.no_grad():
        model.regressor.network.perceptrons[0][-1].bias[..., -3:] += 1
    table = sample_episodes(model, 500, 20)
    evaluation = evaluate(model, table, COLUMNS, 4, 0)
    np.testing.assert_allclose(evaluation.joint_calibration, CURVE_LEVELS, atol=0.02)
    np.testing.assert_allclose(
        evaluation.calibration, np.tile(np.array(CURVE_LEVELS)[:, None], 3), atol=0.02
    )
    assert evaluation.metrics.joint_coverage == pytest.approx(
        {"50%": 0.5, "90%": 0.9, "95%": 0.95}, abs=0.015
    )

    def blind(observation: np.ndarray, action: np.ndarray) -> Prediction:
        members = DynamicsModel.predict(model, observation, action).members
        return Prediction(DiagonalGaussian(members.mean, members.variance))

    monkeypatch.setattr(model, "predict", blind)
    other = evaluate(model, table, COLUMNS, 4, 0)
    np.testing.assert_allclose(other.calibration, evaluation.calibration, atol=1e-3)
    assert np.abs(other.joint_calibration - CURVE_LEVELS).max() > 0.06
    assert other.metrics.nll > evaluation.metrics.nll + 0.1


@pytest.mark.parametrize("conditional", [1e-2, 1e-5, 1e-9])
def test_columns_that_are_nearly_one_still_have_an_ellipsoid(
    make_model: MakeModel,
    make_transitions: Callable[..., Transitions],
    monkeypatch: pytest.MonkeyPatch,
    conditional: float,
) -> None:
    """A scale of a billion, and a second column that is the first but for a little noise."""
    model = make_model(target_columns=(0, 1))
    factor = torch.tensor([[1e9, 0.0], [1.0, conditional]], dtype=torch.float64)
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(size=(2000, 2)))
    members = FullGaussian(
        torch.zeros(1, 2000, 2, dtype=torch.float64), factor.expand(1, 2000, 2, 2)
    )
    real = np.zeros((2000, 3))
    real[:, :2] = members.sample(noise)[0]
    transitions = make_transitions(2000)
    transitions = Transitions(transitions.observation, transitions.action, real, np.array([2000]))
    monkeypatch.setattr(model, "predict", lambda observation, action: Prediction(members))
    monkeypatch.setattr(module, "_CHUNK", 2000)
    found = one_step(model, transitions)
    assert found.joint_probability.isfinite().all()
    if conditional >= 1e-5:
        expected = stats.chi2.cdf(noise.square().sum(1), 2)
        np.testing.assert_allclose(found.joint_probability, expected, atol=0.01)


def test_chunks_change_nothing(
    make_model: MakeModel, sample_episodes: SampleEpisodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(head="scale_tril")
    transitions = _transitions(model, sample_episodes(model, 4, 5))
    whole = one_step(model, transitions)
    monkeypatch.setattr(module, "_CHUNK", 7)
    parts = one_step(model, transitions)
    for name in ("real", "mean", "std", "log_prob", "probability", "joint_probability"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


def test_inside_is_up_to_the_level() -> None:
    probability = torch.tensor([[0.01, 0.3], [0.5, 0.96]], dtype=torch.float64)
    joint = torch.tensor([0.5, 0.91], dtype=torch.float64)
    found = OneStep(probability, probability, probability, joint, probability, joint)
    assert found.inside(0.9).tolist() == [[False, True], [True, False]]
    assert found.inside_jointly(0.9).tolist() == [True, False]


def test_one_column_has_no_joint_coverage(
    make_model: MakeModel, sample_episodes: SampleEpisodes
) -> None:
    model = make_model(target_columns=(1,))
    evaluation = evaluate(model, sample_episodes(model, 3, 5), COLUMNS, 4, 0)
    assert evaluation.metrics.joint_coverage == {}
