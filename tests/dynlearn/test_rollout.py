from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynlearn.config import Propagation
from dynlearn.errors import InvalidInput
from dynlearn.model import DynamicsModel
from dynlearn.rollout import Dynamics, Trajectory, rollout

MakeModel = Callable[..., DynamicsModel]


class Drift:
    """Two members, one that adds 1 at each step and one that takes 1 away; no noise."""

    members = 2
    device = torch.device("cpu")

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        if member is None:
            return observation
        return observation + (1 - 2 * member[:, None])


class Recorder:
    """Dynamics that write down what they were asked."""

    def __init__(self, dynamics: Dynamics):
        self.dynamics, self.members, self.device = dynamics, dynamics.members, dynamics.device
        self.asked: list[tuple[Tensor | None, Tensor | None]] = []

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        self.asked.append((member, noise))
        return self.dynamics.step(observation, action, member, noise)


class Choices:
    """Any number of members, none of which does anything."""

    device = torch.device("cpu")

    def __init__(self, members: int):
        self.members = members

    def step(self, observation: Tensor, *_: Any) -> Tensor:
        return observation


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_generator(seed))


@pytest.mark.parametrize("propagation", ["ts1", "tsinf"])
@pytest.mark.parametrize("particles", [1, 3, 5])
@pytest.mark.parametrize("head", ["variance", "scale_tril"])
def test_a_rollout_is_a_plain_loop(
    make_model: MakeModel,
    reference: Callable[..., tuple[np.ndarray, np.ndarray]],
    propagation: Propagation,
    particles: int,
    head: str,
) -> None:
    starts, candidates, horizon = 2, 3, 4
    model = make_model(absolute_columns=(1,), head=head)
    recorder = Recorder(model)
    observation, actions = _random(starts, 3), _random(starts, candidates, horizon, 2, seed=1)
    found = rollout(recorder, observation, actions, particles, propagation, _generator()).particles
    assert found.shape == (starts, candidates, particles, horizon, 3)
    for row, (start, candidate, particle) in enumerate(np.ndindex(starts, candidates, particles)):
        state = observation[start].double().numpy()
        for step in range(horizon):
            member, noise = recorder.asked[step]
            mean, covariance = reference(
                model, int(member[row]), state, actions[start, candidate, step].numpy()
            )
            state = mean + np.linalg.cholesky(covariance) @ noise[row].numpy()
            np.testing.assert_allclose(
                found[start, candidate, particle, step], state, rtol=1e-3, atol=1e-3
            )


def test_expectation_follows_the_mean(make_model: MakeModel) -> None:
    model = make_model()
    observation, actions = _random(2, 3), _random(2, 3, 4, 2, seed=1)
    found = model.rollout(observation, actions, particles=7, propagation="expectation")
    assert found.particles.shape == (2, 3, 1, 4, 3)
    for start in range(2):
        for candidate in range(3):
            state = observation[start : start + 1]
            for step in range(4):
                state = model.predict(state, actions[start, candidate, step][None]).mean
                torch.testing.assert_close(found.mean[start, candidate, step], state[0])


@given(
    members=st.integers(1, 7),
    particles=st.integers(1, 15),
    propagation=st.sampled_from(["ts1", "tsinf"]),
    seed=st.integers(0, 100),
)
def test_every_candidate_uses_its_members_evenly(
    members: int, particles: int, propagation: Propagation, seed: int
) -> None:
    recorder = Recorder(Choices(members))
    rollout(
        recorder,
        torch.zeros(2, 1),
        torch.zeros(2, 3, 4, 1),
        particles,
        propagation,
        _generator(seed),
    )
    for member, noise in recorder.asked:
        assert member is not None
        assert noise is not None
        assert noise.shape == (2 * 3 * particles, 1)
        for chosen in member.view(6, particles):
            counts = torch.bincount(chosen, minlength=members)
            assert int(counts.max() - counts.min()) <= 1
    kept = [torch.equal(member, recorder.asked[0][0]) for member, _ in recorder.asked]
    if propagation == "tsinf":
        assert all(kept)


def test_ts1_draws_members_anew() -> None:
    recorder = Recorder(Choices(5))
    rollout(recorder, torch.zeros(1, 1), torch.zeros(1, 4, 3, 1), 5, "ts1", _generator())
    assert not torch.equal(recorder.asked[0][0], recorder.asked[1][0])


def test_fewer_particles_than_members_favour_none() -> None:
    recorder = Recorder(Choices(5))
    rollout(recorder, torch.zeros(1, 1), torch.zeros(1, 20_000, 1, 1), 2, "tsinf", _generator())
    chosen = recorder.asked[0][0].view(-1, 2)
    for place in chosen.T:
        shares = torch.bincount(place) / len(place)
        np.testing.assert_allclose(shares, 0.2, atol=0.015)


@pytest.mark.parametrize(("propagation", "variance"), [("tsinf", 100), ("ts1", 10)])
def test_what_the_members_disagree_on_adds_up_or_averages_out(
    propagation: Propagation, variance: float
) -> None:
    """Ten steps of ±1: one sign for all of them, or a new one for each."""
    start, actions = torch.zeros(1, 1), torch.zeros(1, 1, 10, 1)
    found = rollout(Drift(), start, actions, 20_000, propagation, _generator())
    assert float(found.covariance[0, 0, -1]) == pytest.approx(variance, rel=0.05)
    assert float(found.mean[0, 0, -1]) == pytest.approx(0, abs=0.1)


def test_moments_of_particles() -> None:
    particles = _random(2, 3, 6, 4, 2)
    trajectory = Trajectory(particles)
    np.testing.assert_allclose(trajectory.mean, particles.numpy().mean(2), atol=1e-6)
    for place in np.ndindex(2, 3, 4):
        start, candidate, step = place
        expected = np.cov(particles[start, candidate, :, step].T, bias=True)
        np.testing.assert_allclose(trajectory.covariance[place], expected, atol=1e-6)
    assert Trajectory(particles[:, :, :1]).covariance.count_nonzero() == 0


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "expectation"])
def test_the_seed_determines_the_rollout(make_model: MakeModel, propagation: Propagation) -> None:
    model = make_model()
    observation, actions = _random(2, 3), _random(2, 3, 4, 2)
    first, again, other = (
        model.rollout(observation, actions, 4, propagation, seed).particles for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (propagation == "expectation")


def test_one_start_does_not_touch_another(make_model: MakeModel) -> None:
    model = make_model()
    observation, actions = _random(2, 3), _random(2, 3, 4, 2)
    before = model.rollout(observation, actions, 4, "ts1").particles
    observation[1] += 5
    after = model.rollout(observation, actions, 4, "ts1").particles
    torch.testing.assert_close(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_no_particles_are_refused() -> None:
    with pytest.raises(InvalidInput, match="particles: expected at least 1, got 0"):
        rollout(Drift(), torch.zeros(1, 1), torch.zeros(1, 1, 1, 1), 0, "ts1", _generator())
