import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import stats
from torch import Tensor

from dynlearn.config import TrainConfig
from dynlearn.config.choices import ObjectiveName
from dynlearn.data.transitions import Transitions
from dynlearn.errors import CorruptData, InvalidInput, NumericalFailure
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.regressor import EnsembleRegressor
from dynlearn.models.spec import ModelSpec
from dynlearn.storage.tensors import load_state, save_state
from dynlearn.training.fit import dynamics_samples, model_spec
from dynlearn.training.hooks import Hooks
from dynlearn.training.progress import Progress
from dynlearn.training.trainer import Trainer

FULL = ["nll", "beta_nll", "trust_region_nll", "trustable"]
MakeSpec = Callable[..., ModelSpec]
MakeTransitions = Callable[..., Transitions]
MakeTrainer = Callable[..., Trainer]


@pytest.fixture(autouse=True, scope="module")
def _ask_after_every_update() -> Iterator[None]:
    """So that a test can stop a run anywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynlearn.training.trainer._SECONDS_BETWEEN_LOOKS", 0)
        yield


@pytest.fixture(scope="session")
def make_trainer(make_spec: MakeSpec, make_transitions: MakeTransitions) -> MakeTrainer:
    """Return a maker of small runs: 12 updates, 4 an epoch, a validation after every third."""

    def make(transitions: int = 36, **options: Any) -> Trainer:
        config = TrainConfig(
            **{
                "dataset": "d",
                "model": "m",
                "members": 3,
                "hidden": (8,),
                "batch_size": 9,
                "max_updates": 12,
                "validate_every": 3,
                "checkpoint_every": 5,
                "learning_rate": 1e-2,
                **options,
            }
        )
        return _trainer(config, make_spec(), make_transitions(transitions), make_transitions(40, 1))

    return make


def _trainer(
    config: TrainConfig, spaces: ModelSpec, training: Transitions, validation: Transitions
) -> Trainer:
    spec = model_spec(config, spaces.observation_space, spaces.action_space)
    samples = [dynamics_samples(spec, part) for part in (training, validation)]
    return Trainer(config, EnsembleRegressor(spec.regressor), *samples)


def _run(trainer: Trainer, checkpoint: Path | None = None, **hooks: Any) -> bool:
    trainer.hooks = Hooks(checkpoint, **hooks)
    return trainer.run()


def _model(trainer: Trainer, spaces: ModelSpec) -> DynamicsModel:
    """Return what a finished run has fitted, as a model."""
    spec = model_spec(trainer.config, spaces.observation_space, spaces.action_space)
    return DynamicsModel(spec, trainer.regressor)


def _state(trainer: Trainer) -> dict[str, Tensor]:
    best = {f"best.{name}": tensor for name, tensor in trainer.stopping.best.items()}
    measure = {"measure": trainer.stopping.best_measure, "since": trainer.stopping.since_best}
    return {**trainer.regressor.state_dict(), **best, **measure}


def _same(first: Trainer, second: Trainer) -> bool:
    one, other = _state(first), _state(second)
    equal = all(torch.equal(one[name], other[name]) for name in one)
    return equal and one.keys() == other.keys() and first.history == second.history


def _stop_after(updates: int) -> Callable[[], bool]:
    left = iter(range(updates - 1))
    return lambda: next(left, None) is None


def _spoil(trainer: Trainer, member: int) -> None:
    """Give one member weights that no training mends."""
    with torch.no_grad():
        trainer.regressor.network.perceptrons[0][-1].weight[member] = math.nan


# Members


def _plain_loss(objective: str, raw: Tensor, target: Tensor) -> Tensor:
    """One member's loss of the last layer's outputs [B, any], by its formula."""
    error, rest = raw[:, :3] - target, raw[:, 3:]

    def positive(raw: Tensor, least: float) -> Tensor:
        return torch.nn.functional.softplus(raw + math.log(math.expm1(1 - least))) + least

    if objective == "mse":
        return (error**2).mean()
    if objective == "moment_matching":
        return (error**2).mean() + (positive(rest, 1e-4) - error.detach().abs()).square().mean()
    if objective == "full":
        factor = torch.eye(3).repeat(len(raw), 1, 1)
        factor[:, [1, 2, 2], [0, 0, 1]] = rest[:, 3:]
        factor = positive(rest[:, :3], 1e-4).unsqueeze(-1) * factor
        normal = torch.distributions.MultivariateNormal(raw[:, :3], scale_tril=factor)
        return -normal.log_prob(target).mean()
    variance = positive(rest, 1e-8)
    beta = 0.5 if objective == "beta_nll" else 0.0
    nll = 0.5 * (error**2 / variance + variance.log())
    return (variance.detach() ** beta * nll).sum(1).mean()


@pytest.mark.parametrize("objective", ["beta_nll", "nll", "mse", "moment_matching", "full"])
@pytest.mark.parametrize(("schedule", "groups"), [("constant", 1), ("cosine", 1), ("cosine", 2)])
def test_members_learn_what_each_would_learn_alone(
    make_trainer: MakeTrainer, objective: str, schedule: str, groups: int
) -> None:
    """Each is trained again by itself: plain layers, plain Adam, the formula, the same rows."""
    kind = {"objective": "nll", "covariance": "full"} if objective == "full" else {}
    trainer = make_trainer(
        **{"objective": objective, "schedule": schedule, "patience": 1000, **kind},
        member_groups=groups,
    )
    weights = trainer.regressor.network.state_dict()
    before = {name: tensor.detach().clone() for name, tensor in weights.items()}
    data = trainer.groups[0].data
    orders = [torch.cat([g._epoch_order(epoch) for g in trainer.groups]) for epoch in range(3)]
    trainer.run()
    last = _last_weights(trainer)
    for member in range(3):
        parts = [before[name][member].clone().requires_grad_() for name in last]
        optimizer = torch.optim.Adam(parts, lr=1e-2, fused=False, foreach=False)
        for update in range(12):
            start = update % 4 * 9
            rows = orders[update // 4][member, start : start + 9]
            first_weight, first_bias, head_weight, head_bias = parts
            hidden = torch.nn.functional.silu(data.inputs[rows] @ first_weight + first_bias)
            loss = _plain_loss(objective, hidden @ head_weight + head_bias, data.targets[rows])
            if schedule == "cosine":
                optimizer.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * update / 12)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        states = [group.state() for group in trainer.groups]
        for index, (name, part) in enumerate(zip(last, parts, strict=True)):
            torch.testing.assert_close(last[name][member], part.detach(), rtol=1e-4, atol=1e-5)
            # Adam hides the gradient's scale; its moments do not.
            for moment in ("exp_avg", "exp_avg_sq"):
                found = torch.cat([state[f"optimizer.{index}.{moment}"] for state in states])
                expected = optimizer.state[part][moment]
                torch.testing.assert_close(found[member], expected, rtol=1e-3, atol=1e-5)


def _last_weights(trainer: Trainer) -> dict[str, Tensor]:
    """Return the parameters of the last update, which `run` has replaced by the best ones."""
    assert all(group.update == trainer.update for group in trainer.groups)
    # With every validation better than the last, the best weights are the last ones.
    assert trainer.stopping.since_best.tolist() == [0, 0, 0]
    names = [f"perceptrons.0.{layer}.{part}" for layer in (0, 1) for part in ("weight", "bias")]
    return {name: trainer.regressor.network.get_parameter(name).detach() for name in names}


def test_each_member_has_its_own_resample_and_order(make_trainer: MakeTrainer) -> None:
    (group,) = make_trainer(member_groups=1).groups
    for epoch in range(2):
        order = group._epoch_order(epoch)
        for member in range(3):
            expected = group.samples[member].sort().values
            assert torch.equal(order[member].sort().values, expected)
    assert not torch.equal(group.samples[0].sort().values, group.samples[1].sort().values)
    assert not torch.equal(group._epoch_order(0), group._epoch_order(1))
    (whole,) = make_trainer(bootstrap=False, member_groups=1).groups
    every = torch.arange(36)
    assert all(torch.equal(order.sort().values, every) for order in whole._epoch_order(0))
    assert not torch.equal(whole._epoch_order(0)[0], whole._epoch_order(0)[1])
    assert torch.equal(make_trainer(members=1).groups[0].samples[0], every)


@pytest.mark.parametrize(
    "options",
    [
        *({"objective": name} for name in get_args(ObjectiveName)),
        *({"objective": name, "covariance": "full"} for name in FULL),
        {"objective": "trustable", "covariance": "full", "regression_metric": "w2"},
        {"member_groups": 2},
    ],
    ids=str,
)
def test_a_member_that_diverges_takes_no_other_along(
    make_trainer: MakeTrainer, options: dict[str, Any]
) -> None:
    healthy, sick = make_trainer(**options), make_trainer(**options)
    _spoil(sick, 1)
    healthy.run()
    assert sick.run()
    assert sick.elites() == [0, 2]
    assert all(math.isfinite(value) for entry in sick.history for value in entry.values())
    for name, tensor in healthy.regressor.network.state_dict().items():
        assert torch.equal(sick.regressor.network.state_dict()[name][[0, 2]], tensor[[0, 2]])


def test_elites_leave_a_member_that_diverged_behind(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(elites=2)
    _spoil(trainer, 1)
    trainer.run()
    assert sorted(trainer.elites()) == [0, 2]


def test_elites_are_the_best_in_validation_best_first(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(elites=2, members=4)
    trainer.run()
    measure = trainer.stopping.best_measure.tolist()
    assert trainer.elites() == sorted(range(4), key=measure.__getitem__)[:2]
    every = make_trainer(members=4)
    every.run()
    assert every.elites() == [0, 1, 2, 3]


# Measures


@pytest.mark.parametrize(
    "objective",
    [
        {},
        {"objective": "mse"},
        {"objective": "moment_matching"},
        {"covariance": "full"},
        {"covariance": "full", "member_groups": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "columns",
    [{}, {"target_columns": (2, 0), "absolute_columns": (0,), "observation_columns": (1, 2)}],
    ids=["full state", "some columns"],
)
def test_validation_measures_are_those_of_the_predictions_in_original_units(
    make_trainer: MakeTrainer,
    make_spec: MakeSpec,
    make_transitions: MakeTransitions,
    objective: dict[str, Any],
    columns: dict[str, Any],
) -> None:
    trainer = make_trainer(validate_every=12, **objective, **columns)
    reports: list[Progress] = []
    _run(trainer, on_progress=reports.append)
    data = make_transitions(40, seed=1)
    model = _model(trainer, make_spec())
    prediction = model.predict(data.observation, data.action)
    real = data.next_observation[:, list(model.spec.target_columns)]
    for member in range(3):
        mean = prediction.member_means[member].double().numpy()
        covariance = prediction.members.covariance[member].double().numpy()
        densities = [
            stats.multivariate_normal.logpdf(*row)
            for row in zip(real, mean, covariance, strict=True)
        ]
        assert reports[0].validation_nll[member] == pytest.approx(-np.mean(densities), rel=1e-3)
        rmse = np.sqrt(np.square(real - mean).mean())
        assert reports[0].validation_rmse[member] == pytest.approx(rmse, rel=1e-3)
    entry = trainer.history[0]
    assert entry["update"] == 12
    assert entry["validation_nll"] == pytest.approx(np.mean(reports[0].validation_nll))
    assert entry["validation_rmse"] == pytest.approx(np.mean(reports[0].validation_rmse))


@pytest.mark.parametrize("options", [{}, {"covariance": "full"}], ids=str)
@pytest.mark.parametrize(
    ("validate_every", "measured"),
    [
        (1, [[update] for update in range(27)]),
        (5, [[0], [5], [10], [15], [20], [25]]),
        # The first after each validation and every tenth from there.
        (22, [[0, 10, 20], [22]]),
    ],
)
def test_train_measures_are_means_over_some_updates_since_the_last_validation(
    make_trainer: MakeTrainer,
    options: dict[str, Any],
    validate_every: int,
    measured: list[list[int]],
) -> None:
    trainer = make_trainer(validate_every=validate_every, max_updates=27, **options)
    reports: list[Progress] = []
    (group,) = trainer.groups
    nlls: list[list[float]] = []
    squares: list[list[float]] = []
    step = group._step
    scale = trainer.regressor.target_scaler.std.double().numpy()

    def watched(rows: Tensor) -> None:
        with torch.no_grad():
            prediction = group.network(group.data.inputs[rows])
        target = group.data.targets[rows].double().numpy()
        mean, covariance = prediction.mean.double().numpy(), prediction.covariance.double().numpy()
        densities = [
            stats.multivariate_normal.logpdf(
                target[place] * scale,
                mean[place] * scale,
                covariance[place] * np.outer(scale, scale),
            )
            for place in np.ndindex(*target.shape[:2])
        ]
        nlls.append((-np.reshape(densities, target.shape[:2]).mean(1)).tolist())
        squares.append(np.square((target - mean) * scale).mean((1, 2)).tolist())
        step(rows)

    group._step = watched
    _run(trainer, on_progress=reports.append)
    assert len(nlls) == 27
    for report, updates in zip(reports, measured, strict=True):
        expected = np.mean([nlls[update] for update in updates], 0)
        np.testing.assert_allclose(report.train_nll, expected, rtol=1e-4)
        expected = np.sqrt(np.mean([squares[update] for update in updates], 0))
        np.testing.assert_allclose(report.train_rmse, expected, rtol=1e-4)
    for report, entry in zip(reports, trainer.history, strict=True):
        assert entry["train_nll"] == pytest.approx(np.mean(report.train_nll))
        assert entry["train_rmse"] == pytest.approx(np.mean(report.train_rmse))


def test_the_variance_of_mse_is_that_of_the_validation_residuals(
    make_trainer: MakeTrainer, make_spec: MakeSpec, make_transitions: MakeTransitions
) -> None:
    trainer = make_trainer(objective="mse")
    trainer.run()
    data = make_transitions(40, seed=1)
    prediction = _model(trainer, make_spec()).predict(data.observation, data.action)
    residual = prediction.member_means - torch.from_numpy(data.next_observation)
    expected = residual.square().mean(1, keepdim=True).expand(-1, 40, -1)
    torch.testing.assert_close(prediction.member_variances.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_beta_nll_is_not_what_is_reported(make_trainer: MakeTrainer, covariance: str) -> None:
    """The first validation, with a step too small to matter, is one number for every β."""
    values = []
    for beta in (0.0, 1.0):
        trainer = make_trainer(beta=beta, learning_rate=1e-12, max_updates=1, covariance=covariance)
        trainer.run()
        values.append(trainer.history[0])
    assert values[0]["train_nll"] == pytest.approx(values[1]["train_nll"], rel=1e-6)
    assert values[0]["validation_nll"] == pytest.approx(values[1]["validation_nll"], rel=1e-6)


# Stopping


@pytest.mark.parametrize("select_by", ["nll", "rmse"])
def test_each_member_ends_with_its_own_best_weights(
    make_trainer: MakeTrainer, select_by: str
) -> None:
    """mbrl-lib restores the best weights of the ensemble as a whole."""
    trainer = make_trainer(
        select_by=select_by, learning_rate=0.1, schedule="constant", validate_every=1,
        max_updates=40, patience=4,
    )  # fmt: skip
    measures: list[list[float]] = []
    weights: list[dict[str, Tensor]] = []

    def watch(progress: Progress) -> None:
        measures.append(progress.validation_nll)
        network = trainer.regressor.network
        weights.append({name: t.clone() for name, t in network.state_dict().items()})
        if select_by == "rmse":
            measures[-1] = trainer.groups[0].validate().squared_error.mean(1).tolist()

    assert _run(trainer, on_progress=watch)
    chosen = []
    for member in range(3):
        best = since = 0
        for step, row in enumerate(measures):
            if since < 4:
                best, since = (step, 0) if row[member] < measures[best][member] else (best, since)
                since += step != best
        chosen.append(best)
        for name, tensor in trainer.regressor.network.state_dict().items():
            assert torch.equal(tensor[member], weights[best][name][member])
    assert len(set(chosen)) > 1, "the members must differ for this test to see anything"


def test_training_ends_when_every_member_has_stopped(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(learning_rate=0.3, validate_every=1, patience=2, max_updates=1000)
    stopped: list[int] = []
    assert _run(trainer, on_progress=lambda progress: stopped.append(progress.stopped))
    assert trainer.update < 1000
    assert stopped[-1] == 3
    assert all(count < 3 for count in stopped[:-1])


def test_a_run_that_diverges_is_an_error(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(learning_rate=1e30, objective="nll", max_updates=1000)
    assert trainer.run()
    assert trainer.update < 1000
    with pytest.raises(NumericalFailure, match="lower the learning rate") as caught:
        trainer.elites()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("members", [[1], [0, 1, 2]], ids=["one", "all"])
def test_members_that_diverge_late_keep_their_best(
    make_trainer: MakeTrainer, tmp_path: Path, members: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Their weights of before are good, and so is the model; the run ends if all have."""
    options = {"max_updates": 40, "validate_every": 10, "elites": 2}
    whole = make_trainer(**options)
    checkpoint = tmp_path / "checkpoint.safetensors"
    best: list[dict[str, Tensor]] = []

    def spoil(progress: Progress) -> None:
        if progress.update == 20:
            best.append({k: v.clone() for k, v in trainer.stopping.best.items()})
            for member in members:
                _spoil(trainer, member)

    trainer = make_trainer(**options)
    assert _run(trainer, checkpoint, on_progress=spoil)
    assert whole.run()
    assert trainer.update == (30 if len(members) == 3 else 40)
    assert "diverged at update 30 and keep their best weights" in caplog.text
    assert len(trainer.elites()) == 2
    for name, tensor in trainer.regressor.network.state_dict().items():
        for member in members:
            assert torch.equal(tensor[member], best[0][name][member])
    # Which members to predict with can be said anew.
    resumed = make_trainer(**options | {"elites": None})
    assert _run(resumed, checkpoint)
    assert resumed.elites() == [0, 1, 2]


@settings(max_examples=30)
@given(
    transitions=st.integers(1, 30),
    members=st.integers(1, 4),
    batch_size=st.integers(1, 40),
    validate_every=st.integers(1, 9),
)
def test_any_batch_size_with_any_number_of_members_and_transitions(
    make_trainer: MakeTrainer, transitions: int, members: int, batch_size: int, validate_every: int
) -> None:
    """mbrl-lib's batches must divide by the ensemble's size."""
    trainer = make_trainer(
        transitions, members=members, batch_size=batch_size, validate_every=validate_every,
        max_updates=7,
    )  # fmt: skip
    assert trainer.run()
    assert trainer.update == 7
    assert [entry["update"] for entry in trainer.history][-1] == 7
    assert len(trainer.history) == math.ceil(7 / validate_every)
    assert all(tensor.isfinite().all() for tensor in trainer.regressor.state_dict().values())


def test_a_large_constant_means_the_same_in_training_and_in_use(
    make_trainer: MakeTrainer, make_spec: MakeSpec, make_transitions: MakeTransitions
) -> None:
    """A time stamp in float64 is some hundred seconds off in float32."""
    parts = [make_transitions(40, seed) for seed in (0, 1)]
    for part in parts:
        part.observation[:, 1] = part.next_observation[:, 1] = 1_700_000_061.4
    trainer = _trainer(make_trainer(target_columns=(0, 2)).config, make_spec(), *parts)
    assert not trainer.groups[0].data.inputs[:, 1].any()
    trainer.run()
    model = _model(trainer, make_spec())
    prediction = model.predict(parts[1].observation, parts[1].action)
    error = prediction.member_means - torch.from_numpy(parts[1].next_observation[:, [0, 2]])
    rmse = float(error.square().mean((1, 2)).sqrt().mean())
    assert trainer.history[-1]["validation_rmse"] == pytest.approx(rmse, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
@pytest.mark.parametrize("name", ["observation", "next_observation"])
@pytest.mark.parametrize("place", [0, 1], ids=["train", "validation"])
def test_data_that_are_not_finite_in_float32_are_refused(
    make_trainer: MakeTrainer,
    make_spec: MakeSpec,
    make_transitions: MakeTransitions,
    bad: float,
    name: str,
    place: int,
) -> None:
    parts = [make_transitions(40, seed) for seed in (0, 1)]
    getattr(parts[place], name)[7, 1] = bad
    config = make_trainer().config
    with pytest.raises(CorruptData, match="expected finite transitions") as caught:
        _trainer(config, make_spec(), *parts)
    assert "\n" not in str(caught.value)


def test_constant_columns_do_not_hurt(
    make_spec: MakeSpec, make_transitions: MakeTransitions
) -> None:
    """mbrl-lib's normaliser fails on a constant feature."""
    config = TrainConfig(
        dataset="d", model="m", members=2, hidden=(8,), max_updates=300, validate_every=100,
        learning_rate=1e-2,
    )  # fmt: skip
    parts = []
    for seed in (0, 1):
        data = make_transitions(40, seed)
        for array in (data.observation, data.next_observation):
            array[:, 1] = 0.525
        data.action[:, 0] = 1e8
        parts.append(data)
    trainer = _trainer(config, make_spec(), *parts)
    trainer.run()
    assert all(tensor.isfinite().all() for tensor in trainer.regressor.state_dict().values())
    model = _model(trainer, make_spec())
    prediction = model.predict(parts[1].observation, parts[1].action)
    assert (prediction.mean[:, 1] == 0.525).all()
    assert prediction.std[:, 1].max() < 1e-6
    assert prediction.covariance.isfinite().all()


# Determinism and resumption


def test_the_seed_determines_the_weights(make_trainer: MakeTrainer) -> None:
    first, again, other = (make_trainer(seed=seed) for seed in (0, 0, 1))
    for trainer in (first, again, other):
        trainer.run()
    assert _same(first, again)
    assert not _same(first, other)


RUNS: dict[str, dict[str, Any]] = {
    "to the last update": {},
    "mse": {"objective": "mse"},
    "moment matching": {"objective": "moment_matching"},
    "full covariance": {"covariance": "full"},
    "float64": {"precision": "float64"},
    "bfloat16": {"precision": "bfloat16"},
    "separate networks": {"separate_networks": True},
    "groups": {"member_groups": 2},
    # Every member stops early, at validations of their own.
    "early stopping": {
        "learning_rate": 0.1, "schedule": "constant", "validate_every": 1, "patience": 2,
        "max_updates": 40, "batch_size": 12,
    },
}  # fmt: skip


EVERYWHERE = [RUNS["to the last update"], RUNS["mse"], RUNS["early stopping"]]


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS.keys())
def test_a_run_stopped_after_any_update_goes_on_to_the_same_bits(
    make_trainer: MakeTrainer, tmp_path: Path, options: dict[str, Any]
) -> None:
    undisturbed = make_trainer(**options)
    assert undisturbed.run()
    if "patience" in options:
        assert undisturbed.update < 40
    # Within an epoch of four and at its end, before, on and after a validation and a checkpoint.
    stops = range(1, undisturbed.update + 1) if options in EVERYWHERE else (1, 3, 5, 8, 11)
    for stop in stops:
        path = tmp_path / str(stop)
        stopped = make_trainer(**options)
        assert not _run(stopped, path, should_stop=_stop_after(stop))
        assert stopped.update == stop
        resumed = make_trainer(**options)
        assert _run(resumed, path)
        assert _same(resumed, undisturbed), f"stopped after update {stop}"


def test_whether_to_stop_is_asked_now_and_then(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After the first update, and whenever something else is due."""
    monkeypatch.setattr("dynlearn.training.trainer._SECONDS_BETWEEN_LOOKS", 1000)
    options = {"max_updates": 60, "validate_every": 25, "checkpoint_every": 40}
    trainer = make_trainer(**options)
    asked: list[int] = []

    def ask() -> bool:
        asked.append(trainer.update)
        return False

    assert _run(trainer, should_stop=ask)
    assert asked == [1, 25, 40, 50, 60]
    stopped = make_trainer(**options)
    assert not _run(stopped, tmp_path / "c", should_stop=lambda: True)
    assert stopped.update == 1
    resumed = make_trainer(**options)
    assert _run(resumed, tmp_path / "c")
    assert _same(resumed, trainer)


def test_whether_to_stop_is_asked_in_time_however_slow_an_update_is(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynlearn.training.trainer._SECONDS_BETWEEN_LOOKS", 0.05)
    trainer = make_trainer(max_updates=30, validate_every=30, checkpoint_every=30)
    advance = trainer.groups[0].advance

    def slowly(updates: int) -> None:
        time.sleep(0.01 * updates)
        advance(updates)

    monkeypatch.setattr(trainer.groups[0], "advance", slowly)
    asked = [0]

    def ask() -> bool:
        asked.append(trainer.update)
        return False

    assert _run(trainer, should_stop=ask)
    assert max(np.diff(asked)) <= 5


def test_a_run_stopped_after_every_update_ends_with_the_same_bits(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    undisturbed = make_trainer()
    undisturbed.run()
    for _ in range(undisturbed.update):
        assert not _run(make_trainer(), tmp_path / "c", should_stop=lambda: True)
    resumed = make_trainer()
    assert _run(resumed, tmp_path / "c", should_stop=lambda: True)
    assert _same(resumed, undisturbed)


@pytest.mark.parametrize(
    ("checkpoint_every", "where"),
    [(4, "at an epoch's end"), (5, "in an epoch"), (6, "on a validation"), (99, "at the start")],
)
def test_a_run_cut_off_goes_on_from_its_last_checkpoint(
    make_trainer: MakeTrainer, tmp_path: Path, checkpoint_every: int, where: str
) -> None:
    options = {"checkpoint_every": checkpoint_every}
    undisturbed = make_trainer(**options)
    undisturbed.run()

    class PowerCut(Exception):
        pass

    def cut(progress: Progress) -> None:
        if progress.update == 9:
            raise PowerCut

    with pytest.raises(PowerCut):
        _run(make_trainer(**options), tmp_path / "c", on_progress=cut)
    assert load_state(tmp_path / "c")[1]["update"] == checkpoint_every * (8 // checkpoint_every)
    resumed = make_trainer(**options)
    assert _run(resumed, tmp_path / "c")
    assert _same(resumed, undisturbed), where


def test_a_finished_checkpoint_gives_the_same_model_at_once(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    undisturbed = make_trainer(checkpoint_every=5)
    _run(undisturbed, tmp_path / "c")
    resumed = make_trainer(checkpoint_every=5)
    assert _run(resumed, tmp_path / "c", on_progress=lambda _: pytest.fail("it trained"))
    assert _same(resumed, undisturbed)


@pytest.fixture
def checkpoint(make_trainer: MakeTrainer, tmp_path: Path) -> Path:
    _run(make_trainer(), tmp_path / "c", should_stop=_stop_after(5))
    return tmp_path / "c"


def test_a_checkpoint_of_another_configuration_is_refused(
    make_trainer: MakeTrainer, checkpoint: Path
) -> None:
    with pytest.raises(InvalidInput, match="got another beta, seed; change it back"):
        _run(make_trainer(beta=0.25, seed=7), checkpoint)
    assert _run(make_trainer(resume=True, device="cpu"), checkpoint)


def test_a_checkpoint_of_other_data_is_refused(make_trainer: MakeTrainer, checkpoint: Path) -> None:
    with pytest.raises(InvalidInput, match="got another data; change it back"):
        _run(make_trainer(transitions=37), checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, state: tensors.pop("totals"),
        lambda tensors, state: tensors.pop("network.perceptrons.0.1.bias"),
        lambda tensors, state: tensors.pop("best.perceptrons.0.1.bias"),
        lambda tensors, state: tensors.pop("stopping.since_best"),
        lambda tensors, state: tensors.update({"network.perceptrons.0.1.bias": torch.zeros(1)}),
        lambda tensors, state: tensors.update({"network.perceptrons.0.1.bias": torch.zeros(())}),
        lambda tensors, state: tensors.pop("optimizer.0.exp_avg"),
        lambda tensors, state: state.pop("update"),
        lambda tensors, state: state.pop("run"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_refused(
    make_trainer: MakeTrainer, checkpoint: Path, change: Callable[..., Any]
) -> None:
    tensors, state = load_state(checkpoint)
    change(tensors, state)
    save_state(checkpoint, tensors, state)
    with pytest.raises(CorruptData, match="delete it to start over") as caught:
        _run(make_trainer(), checkpoint)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(make_trainer: MakeTrainer, checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(CorruptData, match="delete it to start over"):
        _run(make_trainer(), checkpoint)


def test_another_file_of_tensors_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    save_file({"totals": torch.zeros(2)}, tmp_path / "c")
    assert load_file(tmp_path / "c")
    with pytest.raises(CorruptData):
        _run(make_trainer(), tmp_path / "c")
