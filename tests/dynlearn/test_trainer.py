import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import stats
from torch import Tensor

from dynlearn.checkpoint import load_state, save_state
from dynlearn.config import TrainConfig
from dynlearn.errors import CorruptData, InvalidInput, NumericalFailure
from dynlearn.model import DynamicsModel, ModelSpec
from dynlearn.networks import standardised_variance
from dynlearn.trainer import Trainer, TrainingProgress
from dynlearn.training import model_spec
from dynlearn.transitions import Transitions

MakeTransitions = Callable[..., Transitions]
MakeTrainer = Callable[..., Trainer]


@pytest.fixture(scope="session")
def make_trainer(
    make_spec: Callable[..., ModelSpec], make_transitions: MakeTransitions
) -> MakeTrainer:
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
        spec = make_spec()
        model = DynamicsModel(model_spec(config, spec.observation_space, spec.action_space))
        return Trainer(config, model, make_transitions(transitions), make_transitions(40, seed=1))

    return make


def _state(trainer: Trainer) -> dict[str, Tensor]:
    best = {f"best.{name}": tensor for name, tensor in trainer.stopping.best.items()}
    measure = {"measure": trainer.stopping.best_measure, "since": trainer.stopping.since_best}
    return {**trainer.model.state_dict(), **best, **measure}


def _same(first: Trainer, second: Trainer) -> bool:
    one, other = _state(first), _state(second)
    equal = all(torch.equal(one[name], other[name]) for name in one)
    return equal and one.keys() == other.keys() and first.history == second.history


def _stop_after(updates: int) -> Callable[[], bool]:
    left = iter(range(updates - 1))
    return lambda: next(left, None) is None


# Members


@pytest.mark.parametrize("objective", ["beta_nll", "nll", "mse"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_members_learn_what_each_would_learn_alone(
    make_trainer: MakeTrainer, objective: str, schedule: str
) -> None:
    """Each is trained again by itself: plain layers, plain Adam, the formula, the same rows."""
    trainer = make_trainer(objective=objective, schedule=schedule, patience=1000)
    before = {name: t.detach().clone() for name, t in trainer.model.network.state_dict().items()}
    inputs, targets = trainer.inputs.clone(), trainer.targets.clone()
    orders = [trainer._epoch_order(epoch).clone() for epoch in range(3)]
    trainer.run()
    last = _last_weights(trainer)
    for member in range(3):
        parts = [before[name][member].clone().requires_grad_() for name in last]
        optimizer = torch.optim.Adam(parts, lr=1e-2, fused=False, foreach=False)
        for update in range(12):
            start = update % 4 * 9
            rows = orders[update // 4][member, start : start + 9]
            first_weight, first_bias, head_weight, head_bias = parts
            hidden = torch.nn.functional.silu(inputs[rows] @ first_weight + first_bias)
            raw = hidden @ head_weight + head_bias
            error = raw[:, :3] - targets[rows]
            if objective == "mse":
                loss = (error**2).mean()
            else:
                variance = standardised_variance(raw[:, 3:])
                beta = 0.5 if objective == "beta_nll" else 0.0
                nll = 0.5 * (error**2 / variance + variance.log())
                loss = (variance.detach() ** beta * nll).sum(1).mean()
            if schedule == "cosine":
                optimizer.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * update / 12)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        slots = trainer.optimizer.state_dict()["state"].values()
        for name, part, slot in zip(last, parts, slots, strict=True):
            torch.testing.assert_close(last[name][member], part.detach(), rtol=1e-4, atol=1e-5)
            # Adam hides the gradient's scale; its moments do not.
            expected = optimizer.state[part]["exp_avg"]
            torch.testing.assert_close(slot["exp_avg"][member], expected, rtol=1e-3, atol=1e-5)


def _last_weights(trainer: Trainer) -> dict[str, Tensor]:
    """Return the parameters of the last update, which `run` has replaced by the best ones."""
    states = trainer.optimizer.state_dict()["state"]
    assert all(float(slots["step"]) == trainer.update for slots in states.values())
    # With every validation better than the last, the best weights are the last ones.
    assert trainer.stopping.since_best.tolist() == [0, 0, 0]
    names = ["trunk.0.weight", "trunk.0.bias", "head.weight", "head.bias"]
    return {name: trainer.model.network.get_parameter(name).detach() for name in names}


def test_each_member_has_its_own_resample_and_order(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    for epoch in range(2):
        order = trainer._epoch_order(epoch)
        for member in range(3):
            expected = trainer.resample[member].sort().values
            assert torch.equal(order[member].sort().values, expected)
    assert not torch.equal(trainer.resample[0].sort().values, trainer.resample[1].sort().values)
    assert not torch.equal(trainer._epoch_order(0), trainer._epoch_order(1))
    whole = make_trainer(bootstrap=False)
    every = torch.arange(36)
    assert all(torch.equal(order.sort().values, every) for order in whole._epoch_order(0))
    assert not torch.equal(whole._epoch_order(0)[0], whole._epoch_order(0)[1])
    assert torch.equal(make_trainer(members=1).resample[0], every)


def test_a_member_that_diverges_takes_no_other_along(make_trainer: MakeTrainer) -> None:
    healthy, sick = make_trainer(), make_trainer()
    with torch.no_grad():
        sick.model.network.head.weight[1] = math.nan
    healthy.run()
    assert sick.run()
    with pytest.raises(NumericalFailure, match="got none for members \\[1\\]"):
        sick.elites()
    assert all(math.isfinite(value) for entry in sick.history for value in entry.values())
    for name, tensor in healthy.model.network.state_dict().items():
        assert torch.equal(sick.model.network.state_dict()[name][[0, 2]], tensor[[0, 2]])


def test_elites_leave_a_member_that_diverged_behind(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(elites=2)
    with torch.no_grad():
        trainer.model.network.head.weight[1] = math.nan
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


@pytest.mark.parametrize("objective", ["beta_nll", "mse"])
@pytest.mark.parametrize(
    "columns",
    [{}, {"target_columns": (2, 0), "absolute_columns": (0,), "observation_columns": (1, 2)}],
    ids=["full state", "some columns"],
)
def test_validation_measures_are_those_of_the_predictions_in_original_units(
    make_trainer: MakeTrainer,
    make_transitions: MakeTransitions,
    objective: str,
    columns: dict[str, Any],
) -> None:
    trainer = make_trainer(objective=objective, validate_every=12, **columns)
    reports: list[TrainingProgress] = []
    trainer.run(on_progress=reports.append)
    data = make_transitions(40, seed=1)
    prediction = trainer.model.predict(data.observation, data.action)
    real = data.next_observation[:, list(trainer.model.spec.target_columns)]
    for member in range(3):
        mean = prediction.member_means[member].double().numpy()
        std = prediction.member_variances[member].double().sqrt().numpy()
        nll = -stats.norm.logpdf(real, mean, std).sum(1).mean()
        assert reports[0].validation_nll[member] == pytest.approx(nll, rel=1e-3)
        rmse = np.sqrt(np.square(real - mean).mean())
        assert reports[0].validation_rmse[member] == pytest.approx(rmse, rel=1e-3)
    entry = trainer.history[0]
    assert entry["update"] == 12
    assert entry["validation_nll"] == pytest.approx(np.mean(reports[0].validation_nll))
    assert entry["validation_rmse"] == pytest.approx(np.mean(reports[0].validation_rmse))


@pytest.mark.parametrize("validate_every", [1, 5])
def test_train_measures_are_means_since_the_last_validation(
    make_trainer: MakeTrainer, validate_every: int
) -> None:
    trainer = make_trainer(validate_every=validate_every, max_updates=7)
    nlls: list[float] = []
    squares: list[float] = []
    step = trainer._step

    def watched(rows: Tensor) -> None:
        with torch.no_grad():
            prediction = trainer.model.network(trainer.inputs[rows])
        target = trainer.targets[rows].double().numpy()
        scale = trainer.model.target_scaler.std.double().numpy()
        mean, std = (t.double().numpy() for t in (prediction.mean, prediction.variance.sqrt()))
        logpdf = stats.norm.logpdf(target * scale, mean * scale, std * scale)
        nlls.append(-logpdf.sum(-1).mean())
        squares.append(np.square((target - mean) * scale).mean())
        step(rows)

    trainer._step = watched  # type: ignore[method-assign]
    trainer.run()
    begin = 0
    for entry in trainer.history:
        end = int(entry["update"])
        assert entry["train_nll"] == pytest.approx(np.mean(nlls[begin:end]), rel=1e-4)
        assert entry["train_rmse"] == pytest.approx(np.sqrt(np.mean(squares[begin:end])), rel=1e-4)
        begin = end
    assert begin == 7


def test_the_variance_of_mse_is_that_of_the_validation_residuals(
    make_trainer: MakeTrainer, make_transitions: MakeTransitions
) -> None:
    trainer = make_trainer(objective="mse")
    trainer.run()
    data = make_transitions(40, seed=1)
    prediction = trainer.model.predict(data.observation, data.action)
    residual = prediction.member_means - torch.from_numpy(data.next_observation)
    expected = residual.square().mean(1, keepdim=True).expand(-1, 40, -1)
    torch.testing.assert_close(prediction.member_variances.double(), expected, rtol=1e-4, atol=1e-6)


def test_beta_nll_is_not_what_is_reported(make_trainer: MakeTrainer) -> None:
    """The first validation, with a step too small to matter, is one number for every β."""
    values = []
    for beta in (0.0, 1.0):
        trainer = make_trainer(beta=beta, learning_rate=1e-12, max_updates=1)
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

    def watch(progress: TrainingProgress) -> None:
        measures.append(progress.validation_nll)
        network = trainer.model.network
        weights.append({name: t.clone() for name, t in network.state_dict().items()})
        if select_by == "rmse":
            measures[-1] = trainer._validation_measures()[2].tolist()

    assert trainer.run(on_progress=watch)
    chosen = []
    for member in range(3):
        best = since = 0
        for step, row in enumerate(measures):
            if since < 4:
                best, since = (step, 0) if row[member] < measures[best][member] else (best, since)
                since += step != best
        chosen.append(best)
        for name, tensor in trainer.model.network.state_dict().items():
            assert torch.equal(tensor[member], weights[best][name][member])
    assert len(set(chosen)) > 1, "the members must differ for this test to see anything"


def test_training_ends_when_every_member_has_stopped(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(learning_rate=0.3, validate_every=1, patience=2, max_updates=1000)
    stopped: list[int] = []
    assert trainer.run(on_progress=lambda progress: stopped.append(progress.stopped))
    assert trainer.update < 1000
    assert stopped[-1] == 3
    assert all(count < 3 for count in stopped[:-1])


def test_a_run_that_diverges_is_an_error(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(learning_rate=1e30, objective="nll")
    with pytest.raises(NumericalFailure, match="lower the learning rate") as caught:
        trainer.run()
    assert "\n" not in str(caught.value)


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
    assert all(tensor.isfinite().all() for tensor in trainer.model.state_dict().values())


def test_constant_columns_do_not_hurt(
    make_spec: Callable[..., ModelSpec], make_transitions: MakeTransitions
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
    spec = make_spec()
    model = DynamicsModel(model_spec(config, spec.observation_space, spec.action_space))
    trainer = Trainer(config, model, *parts)
    trainer.run()
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    prediction = model.predict(parts[1].observation, parts[1].action)
    assert (prediction.mean[:, 1] - 0.525).abs().max() < 0.1
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
    # Every member stops early, at validations of their own.
    "early stopping": {
        "learning_rate": 0.1, "schedule": "constant", "validate_every": 1, "patience": 2,
        "max_updates": 40, "batch_size": 12,
    },
}  # fmt: skip


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS.keys())
def test_a_run_stopped_after_any_update_goes_on_to_the_same_bits(
    make_trainer: MakeTrainer, tmp_path: Path, options: dict[str, Any]
) -> None:
    undisturbed = make_trainer(**options)
    assert undisturbed.run()
    if "patience" in options:
        assert undisturbed.update < 40
    for stop in range(1, undisturbed.update + 1):
        path = tmp_path / str(stop)
        stopped = make_trainer(**options)
        assert not stopped.run(path, should_stop=_stop_after(stop))
        assert stopped.update == stop
        resumed = make_trainer(**options)
        assert resumed.run(path)
        assert _same(resumed, undisturbed), f"stopped after update {stop}"


def test_a_run_stopped_after_every_update_ends_with_the_same_bits(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    undisturbed = make_trainer()
    undisturbed.run()
    for _ in range(undisturbed.update):
        assert not make_trainer().run(tmp_path / "c", should_stop=lambda: True)
    resumed = make_trainer()
    assert resumed.run(tmp_path / "c", should_stop=lambda: True)
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

    def cut(progress: TrainingProgress) -> None:
        if progress.update == 9:
            raise PowerCut

    with pytest.raises(PowerCut):
        make_trainer(**options).run(tmp_path / "c", cut)
    assert load_state(tmp_path / "c")[1]["update"] == checkpoint_every * (8 // checkpoint_every)
    resumed = make_trainer(**options)
    assert resumed.run(tmp_path / "c")
    assert _same(resumed, undisturbed), where


def test_a_finished_checkpoint_gives_the_same_model_at_once(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    undisturbed = make_trainer(checkpoint_every=5)
    undisturbed.run(tmp_path / "c")
    resumed = make_trainer(checkpoint_every=5)
    assert resumed.run(tmp_path / "c", on_progress=lambda _: pytest.fail("it trained"))
    assert _same(resumed, undisturbed)


@pytest.fixture
def checkpoint(make_trainer: MakeTrainer, tmp_path: Path) -> Path:
    make_trainer().run(tmp_path / "c", should_stop=_stop_after(5))
    return tmp_path / "c"


def test_a_checkpoint_of_another_configuration_is_refused(
    make_trainer: MakeTrainer, checkpoint: Path
) -> None:
    with pytest.raises(InvalidInput, match="got another beta, seed; change it back"):
        make_trainer(beta=0.25, seed=7).run(checkpoint)
    assert make_trainer(resume=True, device="cpu").run(checkpoint)


def test_a_checkpoint_of_other_data_is_refused(make_trainer: MakeTrainer, checkpoint: Path) -> None:
    with pytest.raises(InvalidInput, match="got another data; change it back"):
        make_trainer(transitions=37).run(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, state: tensors.pop("totals"),
        lambda tensors, state: tensors.pop("network.head.bias"),
        lambda tensors, state: tensors.pop("best.head.bias"),
        lambda tensors, state: tensors.pop("stopping.since_best"),
        lambda tensors, state: tensors.update({"network.head.bias": torch.zeros(1)}),
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
        make_trainer().run(checkpoint)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(make_trainer: MakeTrainer, checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(CorruptData, match="delete it to start over"):
        make_trainer().run(checkpoint)


def test_another_file_of_tensors_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    save_file({"totals": torch.zeros(2)}, tmp_path / "c")
    assert load_file(tmp_path / "c")
    with pytest.raises(CorruptData):
        make_trainer().run(tmp_path / "c")
