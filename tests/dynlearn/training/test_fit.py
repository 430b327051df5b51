from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynlearn.config import TrainConfig
from dynlearn.data.transitions import Transitions
from dynlearn.errors import NumericalFailure
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.spaces import BoxSpace, ObservationSpace
from dynlearn.training.fit import dynamics_samples, fit, model_spec


def _config(**options: Any) -> TrainConfig:
    return TrainConfig(
        **{
            "dataset": "d",
            "model": "m",
            "members": 3,
            "hidden": (16,),
            "batch_size": 32,
            "max_updates": 30,
            "validate_every": 10,
            "learning_rate": 1e-2,
            **options,
        }
    )


def _correlated(rows: int, seed: int) -> Transitions:
    """Steps of ½ a with noise of deviations 0.2 and 0.05 whose correlation is 0.9 sign(x)."""
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(rows, 2))
    action = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
    first, second = rng.normal(size=(2, rows))
    correlation = 0.9 * np.sign(observation[:, 0])
    noise = np.stack([first, correlation * first + np.sqrt(1 - 0.81) * second], 1)
    following = observation + 0.5 * action + noise * [0.2, 0.05]
    return Transitions(observation, action, following, np.array([rows]))


@pytest.mark.parametrize("objective", ["nll", "beta_nll"])
def test_a_full_covariance_is_learned_saved_and_used(tmp_path: Path, objective: str) -> None:
    observations = ObservationSpace(observation=BoxSpace(low=(-np.inf,) * 2, high=(np.inf,) * 2))
    parts = _correlated(2000, 0), _correlated(500, 1)
    trained = {}
    for covariance in ("diagonal", "full"):
        config = _config(
            objective=objective, covariance=covariance, hidden=(32,), max_updates=600,
            validate_every=100, batch_size=128, activation="tanh",
        )  # fmt: skip
        spec = model_spec(config, observations, BoxSpace(low=(-1,), high=(1,)))
        fitted = fit(config, spec, *parts)
        assert fitted is not None
        trained[covariance] = fitted
    # A correlation that is known everywhere is worth ½ log(1 - 0.9²) = -0.83 nats.
    nll = {name: each.history[-1]["validation_nll"] for name, each in trained.items()}
    assert -0.9 < nll["full"] - nll["diagonal"] < -0.45
    model = trained["full"].model
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[0.4], [-0.4]])
    prediction = model.predict(*rows)
    np.testing.assert_allclose(prediction.mean, [[1.2, 0.2], [-1.2, -0.2]], atol=0.08)
    expected = [[[0.04, sign * 0.009], [sign * 0.009, 0.0025]] for sign in (1, -1)]
    np.testing.assert_allclose(prediction.covariance, expected, rtol=0.35)
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    assert loaded.spec == model.spec
    assert torch.equal(loaded.predict(*rows).covariance, prediction.covariance)
    part = model.subset([2, 0]).predict(*rows)
    whole = prediction.members.covariance[[2, 0]]
    torch.testing.assert_close(part.members.covariance, whole)
    many = [np.repeat(part[:1], 20_000, 0) for part in rows]
    drawn, _ = model.sample(*many, seed=0)
    np.testing.assert_allclose(np.cov(drawn.T), prediction.covariance[0], rtol=0.1)
    trajectory = model.rollout(rows[0][:1], rows[1][:1, None, None], particles=5000, seed=0)
    np.testing.assert_allclose(
        trajectory.covariance[0, 0, 0], prediction.covariance[0], rtol=0.15, atol=1e-4
    )


def test_the_spec_is_what_the_configuration_asks_for(make_spec: Callable[..., ModelSpec]) -> None:
    spaces = make_spec().observation_space, make_spec().action_space
    spec = model_spec(_config(), *spaces)
    assert spec.observation_columns == spec.target_columns == (0, 1, 2)
    assert spec.full_state
    assert (spec.head, spec.separate_networks) == ("variance", False)
    columns = {"target_columns": (2, 0), "observation_columns": (1,), "absolute_columns": (0,)}
    spec = model_spec(_config(objective="mse", **columns), *spaces)
    assert (spec.target_columns, spec.observation_columns) == ((2, 0), (1,))
    assert spec.absolute_columns == (0,)
    assert not spec.full_state
    assert spec.head == "mean"
    spec = model_spec(_config(covariance="full", separate_networks=True), *spaces)
    assert (spec.head, spec.separate_networks) == ("scale_tril", True)
    spec = model_spec(_config(objective="moment_matching"), *spaces)
    assert (spec.head, spec.prior_components) == ("std", 0)


def test_a_model_with_a_member_that_diverged_is_not_given_out(
    make_spec: Callable[..., ModelSpec], make_transitions: Callable[..., Transitions]
) -> None:
    config = _config(learning_rate=1e30, objective="nll", validate_every=1)
    spec = model_spec(config, make_spec().observation_space, make_spec().action_space)
    with pytest.raises(NumericalFailure, match="lower the learning rate"):
        fit(config, spec, make_transitions(40), make_transitions(20, seed=1))


def test_samples_are_columns_and_action_and_differences_or_values(
    make_spec: Callable[..., ModelSpec],
) -> None:
    spec = make_spec(observation_columns=(2, 0), target_columns=(0, 1), absolute_columns=(1,))
    row = Transitions(
        np.array([[1.0, 2.0, 3.0]]),
        np.array([[0.5, 0.25]], np.float32),
        np.array([[1.5, 7.0, 9.0]]),
        np.array([1]),
    )
    samples = dynamics_samples(spec, row)
    assert samples.inputs.tolist() == [[3, 1, 0.5, 0.25]]
    assert samples.targets.tolist() == [[0.5, 7]]
    assert samples.inputs.dtype == samples.targets.dtype == np.float64
