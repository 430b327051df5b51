from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dynlearn_envs.object_slide.dynamics import advance, start, step
from dynlearn_envs.object_slide.task import TASK

Array = NDArray[np.float64]


def one_step(state: list[float], action: float) -> list[float]:
    """Run one step from agent position and velocity, object position and velocity."""
    after, _ = advance(np, np.array(state), np.float64(action))
    return [float(value) for value in after]


@pytest.mark.parametrize(
    ("state", "action", "after"),
    [
        pytest.param([-3, 0, -1, 0], 1, [-2.95, 0.5, -1, 0], id="push adds 0.5 m/s, moves at once"),
        pytest.param([-3, 0, -1, 0], 9, [-2.95, 0.5, -1, 0], id="action is clipped"),
        pytest.param([-3, 4.8, -1, 0], 1, [-2.5, 5, -1, 0], id="agent's velocity is clipped"),
        # 2 m/s: the object gains 4, friction takes 0.14715, and it moves in the same step.
        pytest.param([-2, 1.5, -1.7, 0], 1, [-1.9, 0, -1.314715, 3.85285], id="contact"),
        pytest.param([-2, 1.5, -1.7, 1], 1, [-1.9, 0, -1.214715, 4.85285], id="contact in motion"),
        pytest.param([-1.5, -1, -1.7, 0], -1, [-1.5, 0, -2.0, -3.0], id="contact from the right"),
        pytest.param([-3, 0, 1, 1], 0, [-3, 0, 1.085285, 0.85285], id="friction"),
        pytest.param([-3, 0, 1, 0.1], 0, [-3, 0, 1, 0], id="friction stops, does not turn back"),
        pytest.param([-3, 0, 4.9, 4], 0, [-3, 0, 5, 0], id="object stops at the end"),
        pytest.param([-0.6, 1.5, 2, 0], 1, [-0.5, 0, 2, 0], id="agent stops at its limit"),
        pytest.param([-4.9, -1.5, 2, 0], -1, [-5, 0, 2, 0], id="agent stops at the left end"),
    ],
)
def test_one_step_by_hand(state: list[float], action: float, after: list[float]) -> None:
    assert one_step(state, action) == pytest.approx(after, abs=1e-12)


def test_the_gap_to_reach_is_that_to_the_object_before_the_step() -> None:
    # The object flees at 5 m/s, yet the agent touches where it was.
    assert one_step([-2, 1.5, -1.7, 5], 1)[0] == pytest.approx(-1.9)


def by_the_rules(state: Array, action: float) -> list[float]:
    """Do what the description of the environment says, one rule after the other."""
    x_a, v_a, x_o, v_o = (float(value) for value in state)
    v_a = min(max(v_a + 5 * min(max(action, -1), 1) / 1 * 0.1, -5), 5)
    moved = x_a + v_a * 0.1
    side = float(np.sign(x_o - x_a))
    if side * (moved - x_o) + 0.2 >= 0:
        v_o += (1 / 0.5) * v_a
        moved, v_a = x_o - 0.2 * side, 0.0
    if v_o > 0:
        v_o = max(v_o - 0.15 * 9.81 * 0.1, 0)
    x_o += v_o * 0.1
    if x_o > 5:
        x_o, v_o = 5.0, 0.0
    if moved > -0.5:
        moved, v_a = -0.5, 0.0
    if moved < -5:
        moved, v_a = -5.0, 0.0
    return [moved, v_a, x_o, v_o]


def random_states(count: int) -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    states = generator.uniform([-5, -5, -5, 0], [-0.5, 5, 5, 10], (count, 4))
    near = states[: count // 2]
    near[:, 2] = near[:, 0] + generator.uniform(0.2, 0.8, len(near))
    return states, generator.uniform(-1.5, 1.5, count)


def test_random_steps_follow_the_rules() -> None:
    states, actions = random_states(4000)
    after, gained = advance(np, states.T, actions)
    expected = [by_the_rules(state, action) for state, action in zip(states, actions, strict=True)]
    np.testing.assert_allclose(np.stack(after, axis=-1), expected, rtol=0, atol=1e-12)
    assert 0.1 < np.mean(gained != 0) < 0.9


def test_torch_and_numpy_agree_bit_for_bit() -> None:
    states, actions = random_states(1000)
    expected, _ = advance(np, states.T, actions)
    got = step(torch.from_numpy(states), torch.from_numpy(actions)[:, None])
    np.testing.assert_array_equal(got.numpy(), np.stack(expected, axis=-1))


def test_torch_step_keeps_dtype_and_any_batch_dimensions() -> None:
    after = step(torch.zeros(2, 3, 4), torch.zeros(2, 3, 1))
    assert after.shape == (2, 3, 4)
    assert after.dtype == torch.float32


def test_planning_from_the_float32_observation_is_near_exact() -> None:
    environment = gymnasium.make_vec("dynlearn/ObjectSlide-v1", num_envs=500)
    actions = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (30, 500, 1))).float()
    observations, _ = environment.reset(seed=0)
    imagined = torch.from_numpy(observations["observation"])
    for action in actions:
        observations, *_ = environment.step(action.numpy())
        imagined = step(imagined, action)
    error = np.abs(imagined.numpy() - observations["observation"]).max(axis=1)
    # A rounding can turn a near miss into a contact, once in millions of steps.
    assert np.mean(error < 2e-5) > 0.99


def test_start_states_span_what_the_description_says() -> None:
    states, goals = start(np.array([[0.0, 1.0, 0.5], [0.0, 1.0, 0.5], [0.0, 1.0, 0.5]]))
    np.testing.assert_allclose(states[0], [-4.9, -2.9, -3.9])
    np.testing.assert_allclose(states[2] - states[0], [1.0, 2.0, 1.5])
    np.testing.assert_array_equal(states[[1, 3]], 0.0)
    np.testing.assert_allclose(goals, [0.5, 4.5, 2.5])


def play_at_random(episodes: int) -> dict[str, Array]:
    """Return observations [31, N, 4] and actions, rewards and contacts [30, N, ...]."""
    environment = gymnasium.make_vec("dynlearn/ObjectSlide-v1", num_envs=episodes)
    actions = np.random.default_rng(0).uniform(-1, 1, (30, episodes, 1)).astype(np.float32)
    before, _ = environment.reset(seed=0)
    observations, rewards, contacts = [before["observation"]], [], []
    for action in actions:
        after, reward, *_ = environment.step(action)
        transition = (before["observation"], action, after["observation"], after["desired_goal"])
        assert TASK.contact is not None
        contacts.append(TASK.contact(*(torch.from_numpy(part) for part in transition)).numpy())
        observations.append(after["observation"])
        rewards.append(reward)
        before = after
    return {
        "observations": np.array(observations, dtype=np.float64),
        "actions": actions.astype(np.float64),
        "rewards": np.array(rewards),
        "contacts": np.array(contacts),
    }


def test_random_episodes_have_the_statistics_of_the_original_environment() -> None:
    play = play_at_random(2000)
    inputs = np.concatenate([play["observations"][:-1], play["actions"]], axis=-1)
    moves = np.diff(play["observations"][..., 2], axis=0)

    # (values [T, N], statistic, its value for 2000 random episodes of the original class)
    expected: list[tuple[Array, Callable[[Array], float], float]] = [
        (inputs[..., 0], np.mean, -3.82),
        (inputs[..., 1], np.mean, 0.085),
        (inputs[..., 2], np.mean, -2.20),
        (inputs[..., 3], np.mean, 0.246),
        (inputs[..., 4], np.mean, 0.0),
        (inputs[..., 0], np.std, 0.863),
        (inputs[..., 1], np.std, 0.700),
        (inputs[..., 2], np.std, 0.937),
        (inputs[..., 3], np.std, 0.774),
        (inputs[..., 4], np.std, 0.578),
        (moves, np.mean, 0.0262),
        (moves, np.std, 0.0793),
        (moves != 0, np.mean, 0.130),
        ((moves != 0).any(axis=0, keepdims=True), np.mean, 0.35),
        (play["contacts"], np.mean, 0.0122),
        (play["rewards"] == 0, np.mean, 0.0065),
    ]
    for values, statistic, original in expected:
        groups = [statistic(group) for group in np.split(values, 20, axis=1)]
        standard_error = np.std(groups, ddof=1) / np.sqrt(20)
        # Both sides are samples of 2000 episodes, so their difference has twice the variance.
        assert statistic(values) == pytest.approx(original, abs=3 * np.sqrt(2) * standard_error)
    assert moves.max() == pytest.approx(0.629, abs=0.2)


def test_contact_is_whatever_speeds_the_object_up() -> None:
    play = play_at_random(200)
    faster = np.diff(play["observations"][..., 3], axis=0) > 0
    # A push too weak to overcome friction is a contact, too, but speeds nothing up.
    assert np.all(play["contacts"] >= faster)
    assert faster.sum() > 0.8 * play["contacts"].sum() > 0
