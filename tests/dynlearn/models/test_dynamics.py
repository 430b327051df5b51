from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlearn.errors import InvalidInput
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.files import SPEC_FILE, WEIGHTS_FILE

MakeModel = Callable[..., DynamicsModel]
Reference = Callable[..., tuple[np.ndarray, np.ndarray]]

SPECS: dict[str, dict[str, Any]] = {
    "full state": {},
    "relu": {"activation": "relu"},
    "silu": {"activation": "silu", "hidden": (8,)},
    "linear": {"hidden": ()},
    "one member": {"members": 1},
    "some targets": {"target_columns": (2, 0)},
    "absolute columns": {"absolute_columns": (1,)},
    "absolute and some targets": {"target_columns": (2, 1), "absolute_columns": (2,)},
    "some inputs": {"observation_columns": (2,)},
    "inputs in another order": {"observation_columns": (2, 0, 1)},
    "constant variance": {"head": "mean"},
    "standard deviations": {"head": "std"},
    "full covariance": {"head": "scale_tril"},
    "full covariance of some": {"head": "scale_tril", "target_columns": (2, 0)},
    "student_t": {"head": "student_t"},
    "student_t with a prior": {"head": "student_t", "prior_components": 4},
    "separate networks": {"separate_networks": True},
    "separate networks, full": {"separate_networks": True, "head": "scale_tril", "hidden": (8,)},
    "separate networks, one to have": {"separate_networks": True, "head": "mean"},
}


def _rows(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(count, 3)).astype(np.float32)
    return observation, rng.uniform(-1, 1, (count, 2)).astype(np.float32)


@pytest.mark.parametrize("options", SPECS.values(), ids=SPECS.keys())
def test_predict_is_the_plain_formula(
    make_model: MakeModel, reference: Reference, options: dict[str, Any]
) -> None:
    model = make_model(**options)
    observation, action = _rows(5)
    prediction = model.predict(observation, action)
    size = len(model.spec.target_columns)
    assert prediction.member_means.shape == (model.members, 5, size)
    for member in range(model.members):
        for row in range(5):
            mean, covariance = reference(model, member, observation[row], action[row])
            np.testing.assert_allclose(
                prediction.member_means[member, row], mean, rtol=1e-4, atol=1e-5
            )
            np.testing.assert_allclose(
                prediction.member_variances[member, row], np.diag(covariance), rtol=1e-4
            )
            np.testing.assert_allclose(
                prediction.members.covariance[member, row], covariance, rtol=1e-3, atol=1e-5
            )


def test_a_full_covariance_in_original_units_by_hand(make_model: MakeModel) -> None:
    """Entry i, j of the standardised covariance times the scales i and j."""
    model = make_model(head="scale_tril", members=1, hidden=(), target_columns=(0, 2))
    with torch.no_grad():
        layer = model.regressor.network.perceptrons[0][0]
        layer.weight.zero_()
        # Means 1 and -1; a factor of ones on the diagonal and 0.5 below.
        layer.bias.copy_(torch.tensor([1.0, -1.0, 0.0, 0.0, 0.5]))
        model.regressor.target_scaler.std.copy_(torch.tensor([10.0, 0.1]))
        model.regressor.target_scaler.mean.copy_(torch.tensor([3.0, 4.0]))
    prediction = model.predict([[7.0, 8.0, 9.0]], [[0.0, 0.0]])
    torch.testing.assert_close(prediction.mean, torch.tensor([[7 + 3 + 10.0, 9 + 4 - 0.1]]))
    expected = torch.tensor([[[100.0, 0.5], [0.5, 0.0125]]])
    torch.testing.assert_close(prediction.covariance, expected)
    torch.testing.assert_close(prediction.aleatoric, expected)


def test_an_untrained_member_of_zeros_predicts_no_change(make_model: MakeModel) -> None:
    model = make_model(absolute_columns=(1,))
    for tensor in model.regressor.network.state_dict().values():
        tensor.zero_()
    model.regressor.target_scaler.mean.zero_()
    mean = model.predict([[1.0, 2.0, 3.0]], [[0.0, 0.0]]).mean
    assert mean.tolist() == [[1.0, 0.0, 3.0]]


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_any_number_of_rows(make_model: MakeModel, rows: int) -> None:
    model = make_model()
    observation, action = _rows(rows)
    assert model.predict(observation, action).covariance.shape == (rows, 3, 3)
    assert model.sample(observation, action, 0)[0].shape == (rows, 3)


@pytest.mark.parametrize(
    "options", [{"target_columns": (0, 1)}, {"target_columns": (1, 0, 2)}], ids=["some", "shuffled"]
)
def test_a_rollout_needs_the_full_state(make_model: MakeModel, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="train without target_columns"):
        make_model(**options).rollout(np.zeros((1, 3)), np.zeros((1, 1, 1, 2)))


@pytest.mark.parametrize("options", SPECS.values(), ids=SPECS.keys())
@settings(max_examples=15)
@given(data=st.data())
def test_step_gives_each_row_its_member(
    make_model: MakeModel, options: dict[str, Any], data: st.DataObject
) -> None:
    model = make_model(**options)
    last = model.members - 1
    member = data.draw(st.lists(st.integers(0, last), min_size=1, max_size=12))
    observation, action = (torch.from_numpy(part) for part in _rows(len(member)))
    rows = torch.arange(len(member))
    prediction = model.predict(observation, action)
    means = prediction.member_means[member, rows]
    found = model.step(observation, action, torch.tensor(member), None)
    torch.testing.assert_close(found, means, rtol=1e-5, atol=1e-6)
    noise = torch.randn(means.shape, generator=torch.Generator().manual_seed(0))
    found = model.step(observation, action, torch.tensor(member), noise)
    roots = torch.linalg.cholesky(prediction.members.covariance[member, rows])
    spread = (roots @ noise.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found, means + spread, rtol=1e-4, atol=1e-4)
    found = model.step(observation, action, None, None)
    torch.testing.assert_close(found, prediction.mean)


@pytest.mark.parametrize("options", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("each", [0, 1, 4])
@pytest.mark.parametrize("successors", [1, 3])
def test_steps_in_groups_are_steps(
    make_model: MakeModel, options: dict[str, Any], each: int, successors: int
) -> None:
    model = make_model(**options)
    e, d = model.members, len(model.spec.target_columns)
    rows = [torch.from_numpy(part) for part in _rows(e * each)]
    noise = torch.randn(e, each, successors, d)
    found = model.step_groups(*(part.unflatten(0, (e, each)) for part in rows), noise)
    repeated = (part.repeat_interleave(successors, 0) for part in rows)
    member = torch.arange(e).repeat_interleave(each * successors)
    expected = model.step(*repeated, member, noise.view(-1, d))
    torch.testing.assert_close(found.view(-1, d), expected, rtol=1e-5, atol=1e-5)


def test_a_sample_names_its_members_and_follows_from_the_seed(make_model: MakeModel) -> None:
    model = make_model()
    observation, action = _rows(50)
    values, member = model.sample(observation, action, seed=3)
    again, same = model.sample(observation, action, seed=3)
    other, _ = model.sample(observation, action, seed=4)
    assert torch.equal(values, again)
    assert torch.equal(member, same)
    assert not torch.equal(values, other)
    assert set(member.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("head", ["variance", "scale_tril", "student_t"])
def test_samples_have_the_moments_of_the_mixture(make_model: MakeModel, head: str) -> None:
    """Those of a Student's t are the matching Gaussian's."""
    model = make_model(head=head)
    observation, action = (np.repeat(part, 200_000, 0) for part in _rows(1))
    prediction = model.predict(observation[:1], action[:1])
    values, _ = model.sample(observation, action, seed=0)
    scale = float(prediction.std.max())
    np.testing.assert_allclose(values.mean(0), prediction.mean[0], atol=0.01 * scale)
    np.testing.assert_allclose(np.cov(values.T), prediction.covariance[0], atol=0.02 * scale**2)


def _same(first: DynamicsModel, second: DynamicsModel) -> bool:
    one, other = first.regressor.state_dict(), second.regressor.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("options", SPECS.values(), ids=SPECS.keys())
def test_a_saved_model_comes_back_bit_for_bit(
    make_model: MakeModel, options: dict[str, Any], tmp_path: Path
) -> None:
    model = make_model(**options)
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    assert loaded.spec == model.spec
    assert _same(loaded, model)
    assert not loaded.regressor.training
    rows = _rows(4)
    assert torch.equal(loaded.predict(*rows).covariance, model.predict(*rows).covariance)
    assert sorted(path.name for path in tmp_path.iterdir()) == [SPEC_FILE, WEIGHTS_FILE]


def test_a_model_can_predict_in_bfloat16(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(hidden=(64, 64, 64), members=3)
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path, precision="bfloat16")
    assert (model.precision, loaded.precision) == ("float32", "bfloat16")
    exact, found = model.predict(*_rows(400)), loaded.predict(*_rows(400))
    assert found.mean.dtype == found.covariance.dtype == torch.float32
    difference = (found.mean - exact.mean).abs() / exact.std
    assert 0 < difference.median() < 0.02
    assert difference.max() < 0.2
    np.testing.assert_allclose(found.std, exact.std, rtol=0.1)
    steps = [each.rollout(torch.zeros(1, 3), torch.zeros(1, 3, 1, 2)) for each in (model, loaded)]
    torch.testing.assert_close(*(each.particles for each in steps), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("head", ["variance", "mean", "scale_tril", "student_t"])
def test_a_subset_predicts_as_its_members_and_can_be_loaded(
    make_model: MakeModel, head: str, tmp_path: Path
) -> None:
    """mbrl-lib's load fails after elite selection."""
    model = make_model(members=5, head=head)
    elites = model.subset([3, 0])
    elites.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    assert loaded.members == 2
    whole, part = (m.predict(*_rows(4)) for m in (model, loaded))
    assert torch.allclose(part.member_means, whole.member_means[[3, 0]], atol=1e-6)
    covariance = whole.members.covariance[[3, 0]]
    assert torch.allclose(part.members.covariance, covariance, atol=1e-5)


@pytest.mark.parametrize("head", ["variance", "scale_tril"])
def test_a_named_member_answers_its_row_alone(make_model: MakeModel, head: str) -> None:
    model = make_model(head=head)
    observation, action = torch.randn(7, 3), torch.randn(7, 2)
    member = torch.tensor([2, 0, 2, 1, 1, 2, 0])
    one = model.predict(observation, action, member)
    every = model.predict(observation, action)
    rows = torch.arange(7)
    torch.testing.assert_close(one.mean, every.member_means[member, rows])
    torch.testing.assert_close(one.covariance, every.members.covariance[member, rows])
    assert one.epistemic.abs().max() == 0


def test_without_noise_a_step_in_groups_is_the_one_mean_of_each(make_model: MakeModel) -> None:
    model = make_model(target_columns=(2, 0))
    observation, action = (torch.from_numpy(part) for part in _rows(12))
    found = model.step_groups(observation.view(3, 4, 3), action.view(3, 4, 2))
    means = model.predict(observation, action).member_means
    expected = torch.stack([means[member, 4 * member : 4 * member + 4] for member in range(3)])
    torch.testing.assert_close(found, expected.unsqueeze(2))
