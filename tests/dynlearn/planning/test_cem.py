import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynlearn.config import PlannerConfig
from dynlearn.errors import InvalidInput, NumericalFailure
from dynlearn.models.dynamics import DynamicsModel
from dynlearn.planning import CEM, Estimator, Returns
from dynlearn.rollout.dynamics import Dynamics, GroupedDynamics
from dynlearn.spaces import ActionSpace, BoxSpace, DiscreteSpace
from dynlearn.task import TransitionFunction

SETTINGS = PlannerConfig(horizon=4, candidates=64, elites=8, iterations=5, particles=1)
BOX = BoxSpace(low=(-1,), high=(1,))
RETURNS = Estimator.returns


class Walk:
    """One member: the next observation is the observation plus the action."""

    members = 1
    device = torch.device("cpu")

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        return observation + action


class PointMass(Walk):
    """Position and velocity; the action accelerates."""

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        velocity = observation[:, 1:] + action
        return torch.cat((observation[:, :1] + velocity, velocity), 1)


class Broken(Walk):
    """A walk that is not a number after any action that ``fails``."""

    def __init__(self, fails: Callable[[Tensor], Tensor]):
        self.fails = fails

    def step(
        self, observation: Tensor, action: Tensor, member: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        return torch.where(self.fails(action), math.nan, observation + action)


def _near(observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor) -> Tensor:
    """Minus the squared distance of the first column from the goal."""
    return -(next_observation[..., 0] - context[..., 0]).square()


def _planner(
    dynamics: Dynamics | GroupedDynamics,
    reward: TransitionFunction,
    space: ActionSpace,
    settings: PlannerConfig,
    seed: int = 0,
) -> CEM:
    estimator = Estimator(
        dynamics, reward, settings.particles, settings.propagation, settings.risk_aversion
    )
    return CEM(estimator, space, settings, seed)


class Watched:
    """What a planner asks an `Estimator` for: candidates [S, P, H, A] and their scores [S, P].

    Candidates are in original units, which in `BOX` are half action ranges.
    """

    def __init__(self) -> None:
        self.candidates: list[Tensor] = []
        self.returns: list[Tensor] = []

    def __call__(
        self, estimator: Estimator, observation: Tensor, actions: Tensor, context: Tensor, seed: int
    ) -> Returns:
        found = RETURNS(estimator, observation, actions, context, seed)
        self.candidates.append(actions)
        self.returns.append(found.score)
        return found

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Estimator, "returns", lambda *arguments: self(*arguments))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    watched.watch(monkeypatch)
    return watched


@pytest.mark.parametrize(
    ("goal", "low", "high", "best"),
    [(0.4, -1, 1, 0.4), (5, -1, 1, 1), (-5, -1, 1, -1), (5, -0.2, 0.6, 0.6), (0.3, -0.2, 0.6, 0.3)],
)
def test_a_walk_to_a_goal(goal: float, low: float, high: float, best: float) -> None:
    planner = _planner(Walk(), _near, BoxSpace(low=(low,), high=(high,)), SETTINGS)
    action = planner.plan(torch.zeros(1, 1), torch.tensor([[goal]]))
    assert float(action) == pytest.approx(best, abs=0.1 * (high - low))


def test_a_point_mass_finds_the_least_squares_plan() -> None:
    """Positions are linear in the actions, so the best plan solves normal equations."""
    horizon, start, goal = 4, np.array([0.3, -0.2]), 0.8
    settings = SETTINGS.model_copy(update=dict(candidates=500, elites=30, iterations=12))
    steps = np.arange(horizon)
    # An action at step j moves the position of step t by t - j + 1.
    effect = np.clip(steps[:, None] - steps + 1, 0, None).astype(float)
    drift = start[0] + start[1] * (steps + 1)
    # The plan pays for its actions, so that one is best.
    cost = 0.5
    best = np.linalg.solve(effect.T @ effect + cost * np.eye(horizon), effect.T @ (goal - drift))
    assert np.abs(best).max() < 1

    def reward(
        observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor
    ) -> Tensor:
        paid = cost * action.square().sum(-1)
        return _near(observation, action, next_observation, context) - paid

    planner = _planner(PointMass(), reward, BOX, settings)
    action = planner.plan(torch.from_numpy(start[None]).float(), torch.tensor([[goal]]))
    assert float(action) == pytest.approx(best[0], abs=0.05)


def test_each_start_has_its_own_plan() -> None:
    goals = torch.tensor([[0.4], [-0.6], [0.0]])
    actions = _planner(Walk(), _near, BOX, SETTINGS).plan(torch.zeros(3, 1), goals)
    np.testing.assert_allclose(actions, goals, atol=0.15)


def test_one_start_does_not_touch_another() -> None:
    first, second = (
        _planner(Walk(), _near, BOX, SETTINGS).plan(
            torch.tensor([[0.0], [other]]), torch.ones(2, 1)
        )
        for other in (0.0, 0.8)
    )
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_the_seed_determines_the_plans(make_model: Callable[..., DynamicsModel]) -> None:
    def play(seed: int) -> Tensor:
        planner = _planner(
            make_model(), _near, BoxSpace(low=(-1,) * 2, high=(1,) * 2), settings, seed
        )
        return torch.stack([planner.plan(torch.zeros(2, 3), torch.ones(2, 1)) for _ in range(3)])

    for propagation in ("ts1", "tsinf", "moment_matching", "expectation"):
        settings = SETTINGS.model_copy(
            update=dict(particles=3, iterations=2, propagation=propagation)
        )
        assert torch.equal(play(0), play(0))
        assert not torch.equal(play(0), play(1))


def test_the_action_is_the_first_of_the_best_sequence_seen_and_the_rest_starts_the_next(
    watched: Watched,
) -> None:
    planner = _planner(Walk(), _near, BOX, SETTINGS)
    start, goal = torch.zeros(2, 1), torch.tensor([[0.5], [-3.0]])
    action = planner.plan(start, goal)
    assert len(watched.candidates) == SETTINGS.iterations
    candidates, returns = torch.cat(watched.candidates, 1), torch.cat(watched.returns, 1)
    best = candidates[torch.arange(2), returns.argmax(1)]
    torch.testing.assert_close(action, best[:, 0])
    planner.plan(start + action, goal)
    warm = watched.candidates[SETTINGS.iterations][:, 0]
    torch.testing.assert_close(warm[:, :-1], best[:, 1:])
    assert warm[:, -1].tolist() == [[0.0], [0.0]]


def test_a_reset_or_another_number_of_starts_forgets_the_last_plan(watched: Watched) -> None:
    planner = _planner(Walk(), _near, BOX, SETTINGS)
    for starts in (2, 2, 3):
        planner.plan(torch.zeros(starts, 1), torch.ones(starts, 1))
        planner.reset() if starts == 2 else None
    for call in range(3):
        assert watched.candidates[call * SETTINGS.iterations][:, 0].count_nonzero() == 0


def test_no_plan_looks_beyond_the_end_of_the_episode(watched: Watched) -> None:
    planner = _planner(Walk(), _near, BOX, SETTINGS)
    for steps_left, horizon in [(9, 4), (4, 4), (2, 2), (1, 1), (None, 4)]:
        action = planner.plan(torch.zeros(1, 1), torch.ones(1, 1), steps_left)
        assert action.shape == (1, 1)
        assert watched.candidates[-1].shape == (1, SETTINGS.candidates, horizon, 1)


def test_candidates_narrow_around_the_elites(watched: Watched) -> None:
    _planner(Walk(), _near, BOX, SETTINGS).plan(torch.zeros(1, 1), torch.full((1, 1), 0.5))
    for before, after, returns in zip(
        watched.candidates, watched.candidates[1:], watched.returns, strict=False
    ):
        elites = before[0, returns[0].topk(SETTINGS.elites).indices]
        torch.testing.assert_close(after[0, 0], elites.mean(0))
    first, *_, last = (candidates.std(1).mean() for candidates in watched.candidates)
    assert last < 0.5 * first


bounds = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=50)
@given(low=bounds, high=bounds, goal=st.floats(-1e6, 1e6))
def test_every_candidate_is_within_the_bounds(low: float, high: float, goal: float) -> None:
    low, high = min(low, high), max(low, high)
    watched = Watched()
    space = BoxSpace(low=(low,), high=(high,))
    planner = _planner(Walk(), _near, space, SETTINGS.model_copy(update=dict(iterations=2)))
    with pytest.MonkeyPatch.context() as patch:
        watched.watch(patch)
        action = planner.plan(torch.zeros(1, 1), torch.tensor([[goal]]))
    for values in (action, *watched.candidates):
        assert float(values.min()) >= low
        assert float(values.max()) <= high


def test_a_return_that_is_not_a_number_never_wins() -> None:
    """All finite returns are negative, so that a NaN taken for zero would be the best."""
    dynamics = Broken(lambda action: action > 0)
    planner = _planner(dynamics, _near, BOX, SETTINGS)
    for _ in range(3):
        action = planner.plan(torch.zeros(1, 1), torch.full((1, 1), 3.0))
        assert -0.2 < float(action) <= 0


def test_a_reward_that_is_blind_to_nan_is_not_fooled() -> None:
    def sparse(
        observation: Tensor, action: Tensor, next_observation: Tensor, context: Tensor
    ) -> Tensor:
        return -((next_observation - context).abs()[..., 0] > 0.1).float()

    planner = _planner(Broken(lambda action: action > 0), sparse, BOX, SETTINGS)
    assert float(planner.plan(torch.zeros(1, 1), torch.full((1, 1), 3.0))) <= 0


def test_candidates_that_fail_do_not_shape_the_search(watched: Watched) -> None:
    """Only the resting first candidate is finite; fewer are than there are elites."""
    planner = _planner(Broken(lambda action: action != 0), _near, BOX, SETTINGS)
    action = planner.plan(torch.zeros(1, 1), torch.ones(1, 1))
    assert action.tolist() == [[0.0]]
    for candidates in watched.candidates:
        assert candidates[0, 0].count_nonzero() == 0


def test_nothing_but_failures_is_an_error() -> None:
    planner = _planner(Broken(lambda action: action < 9), _near, BOX, SETTINGS)
    with pytest.raises(NumericalFailure, match="expected finite imagined returns, got none"):
        planner.plan(torch.zeros(2, 1), torch.ones(2, 1))


def test_a_lost_start_state_takes_nothing_from_the_others() -> None:
    alone, beside = (_planner(Walk(), _near, BOX, SETTINGS) for _ in range(2))
    goal = torch.ones(2, 1)
    for _ in range(3):
        expected = alone.plan(torch.tensor([[0.0], [0.5]]), goal)
        action = beside.plan(torch.tensor([[0.0], [math.nan]]), goal)
        assert torch.equal(action[0], expected[0])
        assert action[1].isnan().all()
    # What is found again is planned for again.
    assert beside.plan(torch.zeros(2, 1), goal).isfinite().all()


def test_a_score_of_nan_ranks_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamics of others may judge by themselves, and not as carefully."""

    def judged(
        estimator: Estimator, observation: Tensor, actions: Tensor, context: Tensor, seed: int
    ) -> Returns:
        score = actions[:, :, 0, 0].clone()
        score[score > 0] = math.nan
        return Returns(score, score, score)

    monkeypatch.setattr(Estimator, "returns", judged)
    action = _planner(Walk(), _near, BOX, SETTINGS).plan(torch.zeros(1, 1), torch.ones(1, 1))
    assert -0.1 < float(action) <= 0


def test_arrays_are_taken_and_tensors_of_the_usual_kind_given() -> None:
    start, goal = np.zeros((2, 1)), np.array([[0.4], [-0.6]])
    start.flags.writeable = goal.flags.writeable = False
    action = _planner(Walk(), _near, BOX, SETTINGS).plan(start, goal)
    again = _planner(Walk(), _near, BOX, SETTINGS).plan(
        torch.zeros(2, 1), torch.tensor([[0.4], [-0.6]])
    )
    assert torch.equal(action, again)
    weight = torch.ones(1, requires_grad=True)
    (action * weight).sum().backward()  # type: ignore[no-untyped-call]
    action.clamp_(-0.1, 0.1)
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (DiscreteSpace(n=3), {}, "expected continuous actions for CEM, got choices 0 to 2; a pl"),
        (
            BoxSpace(low=(0, 0), high=(1, 1), columns=("grip=0", "grip=1"), one_hot=((0, 2),)),
            {},
            "expected continuous actions for CEM, got whole numbers in grip=0, grip=1; a planner",
        ),
        (
            BoxSpace(low=(-np.inf,), high=(1,)),
            {},
            r"expected bounded actions for CEM, got no bound of action\[0\]",
        ),
        (BOX, {"elites": 65}, "expected at most 64 elites, got 65"),
    ],
)
def test_what_cem_cannot_plan_is_refused(
    space: BoxSpace | DiscreteSpace, options: dict[str, int], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        _planner(Walk(), _near, space, SETTINGS.model_copy(update=options))
