from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynlearn.config.choices import Propagation
from dynlearn.errors import InvalidInput
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.rollout.dynamics import Dynamics, GroupedDynamics
from dynlearn.rollout.imagination import Imagination
from dynlearn.rollout.returns import Estimator
from dynlearn.rollout.trajectory import rollout

MakeModel = Callable[..., DynamicsModel]
RANDOM: list[Propagation] = ["ts1", "tsinf", "moment_matching"]


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


class Step(NamedTuple):
    """What dynamics were asked, and what they answered."""

    observation: Tensor
    action: Tensor
    member: Tensor | None
    noise: Tensor | None
    answer: Tensor


class Recorder:
    """Dynamics that write down what they were asked, and know nothing of groups."""

    def __init__(self, dynamics: Dynamics):
        self.dynamics, self.members, self.device = dynamics, dynamics.members, dynamics.device
        self.steps: list[Step] = []

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        answer = self.dynamics.step(observation, action, member, noise)
        self.steps.append(Step(observation, action, member, noise, answer))
        return answer


class Members:
    """Any number of members; each answers with its own number."""

    device = torch.device("cpu")

    def __init__(self, members: int):
        self.members = members

    def step(self, observation: Tensor, action: Tensor, member: Tensor, noise: Tensor) -> Tensor:
        return member[:, None].float()


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[4, 10, 1024], ids="chunks of {} rows".format)
def _chunk_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynlearn.rollout.imagination._CHUNK_ROWS", request.param)


@pytest.mark.usefixtures("_chunk_rows")
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
    """Each particle comes from the one before it, by its member's formula and its own noise."""
    starts, candidates, horizon = 2, 3, 4
    model = make_model(absolute_columns=(1,), head=head)
    recorder = Recorder(model)
    observation, actions = _random(starts, 3), _random(starts, candidates, horizon, 2, seed=1)
    found = rollout(recorder, observation, actions, particles, propagation, 0).particles
    assert found.shape == (starts, candidates, particles, horizon, 3)
    used = set()
    for start, candidate, particle in np.ndindex(starts, candidates, particles):
        before = observation[start]
        for time in range(horizon):
            after, action = found[start, candidate, particle, time], actions[start, candidate, time]
            step, row = _find(recorder.steps, after)
            used.add((step, row))
            asked = recorder.steps[step]
            assert asked.member is not None
            assert asked.noise is not None
            assert torch.equal(asked.observation[row], before)
            assert torch.equal(asked.action[row], action)
            mean, covariance = reference(model, int(asked.member[row]), before, action.numpy())
            expected = mean + np.linalg.cholesky(covariance) @ asked.noise[row].numpy()
            np.testing.assert_allclose(after, expected, rtol=1e-3, atol=1e-3)
            before = after
    assert len(used) == starts * candidates * particles * horizon


def _find(steps: list[Step], answer: Tensor) -> tuple[int, int]:
    """Return the only step and row that gave an answer."""
    places = [(i, int(row)) for i, s in enumerate(steps) for row in _rows_of(s.answer, answer)]
    assert len(places) == 1
    return places[0]


def _rows_of(answers: Tensor, answer: Tensor) -> Tensor:
    return (answers == answer).all(1).nonzero()[:, 0]


@pytest.fixture(scope="module")
def wide_model(make_model: MakeModel) -> DynamicsModel:
    """Of 28 columns, whose states and returns stay of the size of one."""
    model = make_model(observations=28, actions=4, members=5, hidden=(16, 16))
    model.regressor.network.perceptrons[0][-1].weight.data.mul_(0.02)
    for scaler in (model.regressor.input_scaler, model.regressor.target_scaler):
        scaler.mean.zero_()
        scaler.std.fill_(1)
    return model


def _to_the_origin(
    observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor
) -> Tensor:
    return -next_observation[..., :3].norm(dim=-1)


@pytest.mark.parametrize("propagation", [*RANDOM, "expectation"])
def test_the_same_is_imagined_whatever_threads_draws_and_ways(
    wide_model: DynamicsModel, propagation: Propagation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 sequences of 30 steps with 20 particles, as at the fault that this was."""
    start, actions = _random(1, 28), _random(1, 100, 30, 4, seed=1)
    context = start[:, :1]

    def imagine(dynamics: Dynamics | GroupedDynamics, threads: int) -> tuple[Tensor, Tensor]:
        torch.set_num_threads(threads)
        try:
            estimator = Estimator(dynamics, _to_the_origin, 20, propagation)
            return (
                rollout(dynamics, start, actions, 20, propagation, 0).particles,
                estimator.returns(start, actions, context, 0).mean,
            )
        finally:
            torch.set_num_threads(1)

    found = imagine(wide_model, 1)
    assert float(found[0].abs().max()) < 100
    for again in (imagine(wide_model, 2), imagine(wide_model, 3)):
        assert all(map(torch.equal, found, again))
    monkeypatch.setattr("dynlearn.rollout.draws._MAX_DRAWS", 10_000)
    assert all(map(torch.equal, found, imagine(wide_model, 2)))
    # Rows of other calls round otherwise, by one in 2²⁴ of what they are.
    for ours, by_rows in zip(found, imagine(Recorder(wide_model), 1), strict=True):
        assert float((ours - by_rows).abs().max() / ours.abs().max()) < 1e-6


@pytest.mark.parametrize("propagation", RANDOM)
def test_a_shorter_horizon_is_the_beginning_of_a_longer_one(
    make_model: MakeModel, propagation: Propagation
) -> None:
    model, start, actions = make_model(), _random(2, 3), _random(2, 30, 9, 2, seed=1)
    whole = model.rollout(start, actions, 7, propagation, 5).particles
    short = model.rollout(start, actions[:, :, :4], 7, propagation, 5).particles
    assert torch.equal(short, whole[..., :4, :])


@pytest.mark.usefixtures("_chunk_rows")
@pytest.mark.parametrize("propagation", RANDOM)
@pytest.mark.parametrize("particles", [1, 4, 6])
def test_a_model_in_groups_is_a_model_in_steps(
    make_model: MakeModel, propagation: Propagation, particles: int
) -> None:
    model = make_model(absolute_columns=(1,), observation_columns=(2, 0, 1))
    assert isinstance(model, GroupedDynamics)
    plain = Recorder(model)
    assert not isinstance(plain, GroupedDynamics)
    asked = _random(2, 3), _random(2, 5, 4, 2, seed=1), particles, propagation, 7
    found = rollout(model, *asked).particles
    torch.testing.assert_close(found, rollout(plain, *asked).particles, rtol=1e-4, atol=1e-5)


def test_threads_are_as_many_after_as_before(make_model: MakeModel) -> None:
    torch.set_num_threads(2)
    try:
        rollout(make_model(), _random(2, 3), _random(2, 500, 2, 2, seed=1), 20, "ts1", 7)
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("propagation", RANDOM)
def test_neither_the_order_of_chunks_nor_how_many_at_once_changes_the_answer(
    make_model: MakeModel, propagation: Propagation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynlearn.rollout.imagination._CHUNK_ROWS", 12)
    model = make_model()
    asked = _random(2, 3), _random(2, 5, 4, 2, seed=1), 4, propagation, 7
    expected = rollout(model, *asked).particles.flatten(0, 1)
    imagination = Imagination(model, *asked)
    assert imagination.sequences(range(4)) == slice(0, 10)
    for chunks in (range(3, 4), range(0, 1), range(1, 3), range(4)):
        found = torch.stack(list(imagination.steps(chunks)), 2)
        part = expected[imagination.sequences(chunks)]
        torch.testing.assert_close(found, part, rtol=1e-5, atol=1e-5)
    for at_once in (1, 3, 32):
        monkeypatch.setattr("dynlearn.rollout.schedule._CHUNKS_IN_ONE_CALL", at_once)
        recorder = Recorder(model)
        found = rollout(recorder, *asked).particles.flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert len(recorder.steps) == 4 * -(-4 // at_once)


@pytest.mark.parametrize("draws", [1, 50, 10**6])
@pytest.mark.parametrize("propagation", ["ts1", "tsinf"])
def test_a_long_horizon_is_drawn_in_parts(
    make_model: MakeModel,
    propagation: Propagation,
    draws: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dynlearn.rollout.draws._MAX_DRAWS", draws)
    asked = torch.zeros(1, 1), torch.zeros(1, 2, 9, 1), 5, propagation, 0
    dealt = rollout(Members(5), *asked).particles[0, :, :, :, 0]
    assert (dealt.sort(1).values == torch.arange(5.0)[:, None]).all()
    assert bool((dealt == dealt[..., :1]).all()) == (propagation == "tsinf")
    noises = Recorder(Members(5))
    rollout(noises, *asked)
    assert len({step.noise.sum().item() for step in noises.steps}) == 9


def test_no_call_takes_more_rows_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynlearn.rollout.imagination._CHUNK_ROWS", 64)
    monkeypatch.setattr("dynlearn.rollout.schedule._CHUNKS_IN_ONE_CALL", 2)
    for candidates, particles in [(1, 1), (63, 1), (65, 1), (1000, 1), (333, 7), (5, 50), (3, 200)]:
        recorder = Recorder(Members(5))
        rollout(recorder, torch.zeros(1, 1), torch.zeros(1, candidates, 1, 1), particles, "ts1", 0)
        rows = [len(step.answer) for step in recorder.steps]
        # Where one is over, each chunk fills up.
        assert max(rows) <= 2 * (max(64, particles) + 4)
        assert candidates * particles <= sum(rows) <= candidates * particles + 2 * 4 * len(rows)


@pytest.mark.usefixtures("_chunk_rows")
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
def test_every_candidate_and_every_chunk_uses_its_members_evenly(
    members: int, particles: int, propagation: Propagation, seed: int
) -> None:
    asked = torch.zeros(2, 1), torch.zeros(2, 3, 4, 1), particles, propagation, seed
    found = rollout(Members(members), *asked).particles[..., 0].long()
    for step in range(4):
        dealt = found[..., step].reshape(6, particles)
        for rows in (*dealt, dealt.flatten()):
            counts = torch.bincount(rows, minlength=members)
            assert int(counts.max() - counts.min()) <= 1
    if propagation == "tsinf":
        assert (found == found[..., :1]).all()


def test_ts1_draws_members_anew() -> None:
    found = rollout(Members(5), torch.zeros(1, 1), torch.zeros(1, 4, 3, 1), 5, "ts1", 0).particles
    assert not torch.equal(found[..., 0, :], found[..., 1, :])


@pytest.mark.parametrize("particles", [1, 2, 5, 7])
def test_no_place_favours_a_member(particles: int) -> None:
    asked = torch.zeros(1, 1), torch.zeros(1, 20_000, 2, 1), particles, "ts1", 0
    chosen = rollout(Members(5), *asked).particles[0, ..., 0].long()
    for place in chosen.unbind(1):
        together = torch.bincount(place[:, 0] * 5 + place[:, 1], minlength=25) / len(place)
        np.testing.assert_allclose(together, 1 / 25, atol=0.006)
        np.testing.assert_allclose(torch.bincount(place[:, 0]) / len(place), 0.2, atol=0.015)


def test_one_particle_of_one_candidate_favours_no_member() -> None:
    asked = torch.zeros(1, 1), torch.zeros(1, 1, 1, 1), 1, "tsinf"
    chosen = [int(rollout(Members(3), *asked, seed).particles) for seed in range(600)]
    assert all(150 < chosen.count(member) < 250 for member in range(3))


@pytest.mark.parametrize(("propagation", "variance"), [("tsinf", 100), ("ts1", 10)])
def test_what_the_members_disagree_on_adds_up_or_averages_out(
    propagation: Propagation, variance: float
) -> None:
    """Ten steps of ±1: one sign for all of them, or a new one for each."""
    start, actions = torch.zeros(1, 1), torch.zeros(1, 1, 10, 1)
    found = rollout(Drift(), start, actions, 20_000, propagation, 0)
    assert float(found.covariance[0, 0, -1]) == pytest.approx(variance, rel=0.05)
    assert float(found.mean[0, 0, -1]) == pytest.approx(0, abs=0.1)


def test_moment_matching_keeps_the_moments_of_ts1_and_makes_them_gaussian() -> None:
    """One step of ±1: mean 0, variance 1, and a fourth moment of 3 and not of 1."""
    start, actions = torch.zeros(1, 1), torch.zeros(1, 1, 1, 1)
    for propagation, fourth in [("ts1", 1), ("moment_matching", 3)]:
        found = rollout(Drift(), start, actions, 2000, propagation, 0).particles.flatten()
        assert float(found.mean()) == pytest.approx(0, abs=0.08)
        assert float(found.var()) == pytest.approx(1, rel=0.1)
        assert float(found.pow(4).mean()) == pytest.approx(fourth, rel=0.15)


def test_moment_matching_with_one_particle_is_ts1(make_model: MakeModel) -> None:
    asked = _random(2, 3), _random(2, 3, 1, 2), 1
    redrawn, kept = (
        make_model().rollout(*asked, propagation, 3).particles
        for propagation in ("moment_matching", "ts1")
    )
    torch.testing.assert_close(redrawn, kept)


@pytest.mark.parametrize("propagation", [*RANDOM, "expectation"])
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
    with pytest.raises(InvalidInput, match="particles: expected an integer of at least 1, got 0"):
        rollout(Drift(), torch.zeros(1, 1), torch.zeros(1, 1, 1, 1), 0, "ts1", 0)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_is_none_is_refused(seed: int) -> None:
    with pytest.raises(InvalidInput, match=f"seed: expected an integer from 0 to .*, got {seed}"):
        rollout(Drift(), torch.zeros(1, 1), torch.zeros(1, 1, 1, 1), 1, "ts1", seed)
