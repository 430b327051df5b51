"""What is learned where numbers are too large for float32, and actions outside their space."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynlearn.config import TrainConfig
from dynlearn.data.transitions import Transitions
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.models.spec import ModelSpec
from dynlearn.spaces import BoxSpace, DiscreteSpace, ObservationSpace
from dynlearn.training.fit import fit, model_spec
from dynlearn.training.ranges import with_ranges

# Metres east and north, as on a map.
PLACE = np.array([5e5, 5.4e6])
CONFIG = TrainConfig(
    dataset="d", model="m", members=2, hidden=(16,), learning_rate=1e-2, max_updates=1500,
    validate_every=500, schedule="cosine", batch_size=64, device="cpu",
)  # fmt: skip
STEPS = BoxSpace(low=(-1, -1), high=(1, 1))


def walk(rows: int, seed: int, place: np.ndarray = PLACE) -> Transitions:
    """Steps of five centimetres times the action, within ten metres of a place."""
    rng = np.random.default_rng(seed)
    before = place + rng.uniform(-10, 10, (rows, 2))
    action = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    return Transitions(before, action, before + 0.05 * action, np.array([rows]))


def spec_of(config: TrainConfig = CONFIG) -> ModelSpec:
    unbounded = BoxSpace(low=(-np.inf,) * 2, high=(np.inf,) * 2, dtype="float64")
    return model_spec(config, ObservationSpace(observation=unbounded), STEPS)


def learn(spec: ModelSpec, config: TrainConfig = CONFIG) -> DynamicsModel:
    training, validation = walk(2000, 0), walk(200, 1)
    trained = fit(config, with_ranges(spec, [training]), training, validation)
    assert trained is not None
    return trained.model


@pytest.fixture(scope="module")
def model() -> DynamicsModel:
    return learn(spec_of())


def test_steps_of_centimetres_are_learned_where_float32_knows_half_metres(
    model: DynamicsModel, tmp_path: Path
) -> None:
    held_out = walk(100, 2)
    model.save(tmp_path)
    loaded = DynamicsModel.load(tmp_path)
    for known in (model, loaded):
        prediction = known.predict(held_out.observation, held_out.action)
        np.testing.assert_allclose(prediction.mean, held_out.next_observation, rtol=0, atol=1e-3)
        assert prediction.std.max() < 1e-2
        assert prediction.log_prob(torch.from_numpy(held_out.next_observation)).mean() > 5
    # The same from lists.
    listed = loaded.predict(held_out.observation.tolist(), held_out.action.tolist())
    assert torch.equal(listed.mean, prediction.mean)


def test_samples_and_rollouts_are_as_exact(model: DynamicsModel) -> None:
    start = PLACE[None]
    drawn, _ = model.sample(start, [[1.0, -1.0]], seed=0)
    np.testing.assert_allclose(drawn.numpy() - start, [[0.05, -0.05]], atol=5e-3)
    actions = np.ones((1, 1, 10, 2), np.float32)
    for propagation in ("ts1", "tsinf", "moment_matching", "expectation"):
        imagined = model.rollout(start, actions, propagation=propagation)  # type: ignore[arg-type]
        np.testing.assert_allclose(
            imagined.mean[0, 0, -1].numpy() - start[0], [0.5, 0.5], atol=0.01
        )


def test_a_full_covariance_and_absolute_columns_are_as_exact() -> None:
    config = CONFIG.model_copy(update={"covariance": "full", "absolute_columns": (1,)})
    held_out = walk(100, 2)
    prediction = learn(spec_of(config), config).predict(held_out.observation, held_out.action)
    error = prediction.mean.numpy() - held_out.next_observation
    assert np.abs(error[:, 0]).max() < 1e-3
    # Not the step is learned but the place, of twenty metres.
    assert np.abs(error[:, 1]).max() < 1
    assert prediction.log_prob(torch.from_numpy(held_out.next_observation)).isfinite().all()


def test_only_columns_that_need_it_have_an_origin() -> None:
    far = with_ranges(spec_of(), [walk(500, 0, np.array([0.0, 5.4e6]))])
    assert far.origin is not None
    assert far.origin[0] == 0
    assert far.origin[1] == pytest.approx(5.4e6, abs=1)
    assert with_ranges(spec_of(), [walk(500, 0, np.zeros(2))]).origin is None
    single = walk(500, 0)
    rounded = replace(
        single,
        observation=single.observation.astype(np.float32),
        next_observation=single.next_observation.astype(np.float32),
    )
    # What float32 has lost is lost.
    assert with_ranges(spec_of(), [rounded]).origin is None


def test_actions_are_bounded_by_the_space_and_the_data() -> None:
    inside = walk(100, 0)
    spec = with_ranges(spec_of(), [inside])
    assert spec.action_range is None
    assert spec.action_bounds == ((-1, -1), (1, 1))
    action = inside.action.copy()
    action[7] = [3, -2]
    beyond = with_ranges(spec_of(), [replace(inside, action=action)])
    assert beyond.action_bounds == ((-1, -2), (3, 1))
    discrete = spec.model_copy(update={"action_space": DiscreteSpace(n=2), "action_range": None})
    assert with_ranges(discrete, [inside]).action_bounds == ((0, 0), (1, 1))


def test_actions_beyond_what_a_model_knows_are_clipped(model: DynamicsModel) -> None:
    start = PLACE[None]
    for beyond, most in ((5.0, 1.0), (np.inf, 1.0), (-7.0, -1.0)):
        found = model.predict(start, [[beyond, 0.0]])
        assert torch.equal(found.mean, model.predict(start, [[most, 0.0]]).mean)
        far, near = (
            model.rollout(start, np.full((1, 1, 3, 2), action)).particles
            for action in (beyond, most)
        )
        assert torch.equal(far, near)
