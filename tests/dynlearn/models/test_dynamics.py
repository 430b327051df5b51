import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from dynlearn.errors import CorruptData, InvalidInput, NotFound
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.files import SPEC_FILE, WEIGHTS_FILE
from dynlearn.models.spec import ModelSpec
from dynlearn.spaces import DiscreteSpace

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


def test_discrete_actions_are_one_hot(make_model: MakeModel) -> None:
    model = make_model(action_space=DiscreteSpace(n=3, start=1))
    observation, _ = _rows(2)
    codes = np.array([[0, 0, 1], [1, 0, 0]], np.float32)
    expected = model.predict(observation, codes)
    for action in ([3, 1], np.array([3, 1]), np.array([3, 1], np.uint8), torch.tensor([3, 1])):
        found = model.predict(observation, action)
        assert torch.equal(found.member_means, expected.member_means)
    for wrong in ([0, 1], [1, 4]):
        with pytest.raises(InvalidInput, match=r"action: expected integers 1 to 3, got"):
            model.predict(observation, wrong)
    sequences = np.array([[[3, 1]]])
    trajectory = model.rollout(observation[:1], sequences, particles=2, seed=0)
    coded = model.rollout(observation[:1], codes[None, None], particles=2, seed=0)
    assert torch.equal(trajectory.particles, coded.particles)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_any_number_of_rows(make_model: MakeModel, rows: int) -> None:
    model = make_model()
    observation, action = _rows(rows)
    assert model.predict(observation, action).covariance.shape == (rows, 3, 3)
    assert model.sample(observation, action, 0)[0].shape == (rows, 3)


def test_rows_can_come_as_any_array(make_model: MakeModel) -> None:
    model = make_model()
    observation, action = _rows(4)
    expected = model.predict(observation, action).mean
    frozen = observation.copy()
    frozen.flags.writeable = False
    backwards = observation[::-1].copy()[::-1]
    for other in (
        frozen,
        backwards,
        np.asfortranarray(observation),
        observation.astype(np.float64),
        observation.astype(">f4"),
        observation.tolist(),
        torch.from_numpy(observation),
        torch.from_numpy(observation).double(),
    ):
        assert torch.equal(model.predict(other, action).mean, expected)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        ((2, 4), (2, 2), "observation: expected shape [rows, 3], got [2, 4]"),
        ((3,), (1, 2), "observation: expected shape [rows, 3], got [3]"),
        ((2, 3), (2, 1), "action: expected shape [rows, 2], got [2, 1]"),
        ((2, 3), (3, 2), "got 3 actions and 2 observations"),
        # As many columns together as there must be, and yet wrong.
        ((2, 4), (2, 1), "observation: expected shape [rows, 3], got [2, 4]"),
    ],
)
def test_wrong_shapes_are_refused(
    make_model: MakeModel, observation: tuple[int, ...], action: tuple[int, ...], message: str
) -> None:
    model = make_model()
    for ask in (model.predict, lambda *parts: model.sample(*parts, 0)):
        with pytest.raises(InvalidInput) as caught:
            ask(np.zeros(observation), np.zeros(action))
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("observation", "actions"),
    [
        ((1, 4), (1, 2, 3, 1)),
        ((1, 1), (1, 2, 3, 4)),
        ((1, 3), (1, 2, 3, 1)),
        ((1, 3), (2, 2, 3, 2)),
        ((3,), (1, 2, 3, 2)),
        ((1, 3), (1, 3, 2)),
        ((1, 3), (1, 0, 3, 2)),
        ((), (1, 2, 3, 2)),
    ],
)
def test_wrong_shapes_for_a_rollout_are_refused(
    make_model: MakeModel, observation: tuple[int, ...], actions: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        make_model().rollout(np.zeros(observation), np.zeros(actions))


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


def test_the_same_model_makes_the_same_files(make_model: MakeModel, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_model().save(tmp_path / name)
        contents.append([(tmp_path / name / f).read_bytes() for f in (SPEC_FILE, WEIGHTS_FILE)])
    assert contents[0] == contents[1]


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


def test_there_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(NotFound, match=f"expected a file .*{SPEC_FILE}, got none"):
            DynamicsModel.load(folder)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
@pytest.mark.parametrize("file", [SPEC_FILE, WEIGHTS_FILE])
def test_truncated_files_are_refused(
    make_model: MakeModel, tmp_path: Path, file: str, keep: int
) -> None:
    make_model().save(tmp_path)
    content = (tmp_path / file).read_bytes()
    # The last byte of the JSON is a newline that nobody would miss.
    (tmp_path / file).write_bytes(content[: keep - 1 if keep < 0 else keep])
    _check_refused(tmp_path, file)


def test_missing_weights_are_not_found(make_model: MakeModel, tmp_path: Path) -> None:
    make_model().save(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(NotFound):
        DynamicsModel.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("network.perceptrons.0.2.bias"),
        lambda tensors: tensors.update(extra=torch.zeros(1)),
        lambda tensors: tensors.update({"network.perceptrons.0.2.bias": torch.zeros(3, 1, 5)}),
        lambda tensors: tensors["network.perceptrons.0.2.weight"].fill_(torch.nan),
    ],
    ids=["missing", "extra", "other shape", "not finite"],
)
def test_altered_weights_are_refused(
    make_model: MakeModel, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any]
) -> None:
    make_model().save(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    _check_refused(tmp_path, WEIGHTS_FILE)


@pytest.mark.parametrize(
    "change",
    [
        {"members": 4},
        {"members": 10**9},
        {"members": "three"},
        {"hidden": [8, 9]},
        {"hidden": [10**9, 10**9]},
        {"hidden": [0]},
        {"hidden": [-8, 8]},
        {"target_columns": [0, 1, 3]},
        {"target_columns": []},
        {"observation_columns": [0, 0]},
        {"observation_columns": [-1]},
        {"absolute_columns": [5]},
        {"activation": "sin"},
        {"head": "softplus"},
        {"head": "scale_tril"},
        {"head": "student_t", "prior_components": -1},
        {"head": "student_t", "prior_components": 10**9},
        {"separate_networks": True},
        {"unknown": 1},
        {"action_space": {"kind": "box", "low": [0, 0], "high": [1]}},
    ],
    ids=str,
)
def test_an_altered_spec_is_refused(
    make_model: MakeModel, tmp_path: Path, change: dict[str, Any]
) -> None:
    make_model().save(tmp_path)
    spec = json.loads((tmp_path / SPEC_FILE).read_text())
    (tmp_path / SPEC_FILE).write_text(json.dumps({**spec, **change}))
    _check_refused(tmp_path, SPEC_FILE)


def _check_refused(folder: Path, file: str) -> None:
    with pytest.raises(CorruptData) as caught:
        DynamicsModel.load(folder)
    message = str(caught.value)
    assert str(folder / file) in message
    assert "\n" not in message
    assert len(message) < 1000


def test_a_spec_survives_json(make_spec: Callable[..., ModelSpec]) -> None:
    spec = make_spec(target_columns=(2, 0), absolute_columns=(0,))
    text = spec.model_dump_json()
    assert ModelSpec.model_validate_json(text) == spec
    assert "null" not in text.replace('"goal":null', "")


def test_columns_that_are_not_there_are_named(make_spec: Callable[..., ModelSpec]) -> None:
    with pytest.raises(ValidationError, match=r"expected distinct columns 0 to 2, got \(3,\)"):
        make_spec(target_columns=(3,))
    with pytest.raises(ValidationError, match="expected some of the target columns"):
        make_spec(target_columns=(0,), absolute_columns=(1,))


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


@pytest.mark.parametrize("member", [[0, 1], [0, 0, 3], [0, 0, -1]])
def test_members_that_are_not_there_are_refused(make_model: MakeModel, member: list[int]) -> None:
    with pytest.raises(InvalidInput, match="member: expected"):
        make_model().predict(torch.zeros(3, 3), torch.zeros(3, 2), member)
