from typing import Any

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from dynlearn.errors import InvalidInput
from dynlearn.spaces import ActionSpace, BoxSpace, DiscreteSpace
from dynlearn_envs.environments import describe_spaces, make_environment, make_vector_environment
from dynlearn_envs.object_slide.dynamics import FRICTION_LOSS, TIME_STEP
from dynlearn_envs.object_slide.script import launch_velocity
from dynlearn_envs.policies import Policy, make_policy

SLIDE, FETCH = "dynlearn/ObjectSlide-v1", "FetchPickAndPlace-v4"
PUSH = BoxSpace(low=(-1.0,), high=(1.0,))


def generators(seeds: list[int]) -> list[np.random.Generator]:
    return [np.random.default_rng([99, seed]) for seed in seeds]


def slide(policy: Policy, seeds: list[int], steps: int = 30) -> dict[str, NDArray[Any]]:
    """Return observations [T + 1, B, 4], actions [T, B, 1] and rewards [T, B]."""
    environment = make_vector_environment(SLIDE, len(seeds), max_steps=steps)
    assert environment is not None
    now, _ = environment.reset(seed=seeds)  # type: ignore[arg-type]
    policy.reset(generators(seeds), steps)
    observations, actions, rewards = [now["observation"]], [], []
    for _ in range(steps):
        actions.append(policy.act(now))
        now, reward, *_ = environment.step(actions[-1])
        observations.append(now["observation"])
        rewards.append(reward)
    return {
        "observations": np.array(observations),
        "actions": np.array(actions),
        "rewards": np.array(rewards),
    }


def slide_success(noise: float, random_share: float) -> float:
    policy = make_policy("scripted", SLIDE, PUSH, noise, random_share)
    return float(np.mean(slide(policy, list(range(1000)))["rewards"][-1] == 0))


@pytest.mark.parametrize("name", ["random", "scripted"])
def test_an_episode_does_not_depend_on_those_beside_it(name: str) -> None:
    together = slide(make_policy(name, SLIDE, PUSH, 0.3, 0.3), list(range(20)))
    again = slide(make_policy(name, SLIDE, PUSH, 0.3, 0.3), [11, 4])
    for key, values in again.items():
        assert values[:, 0].tobytes() == np.ascontiguousarray(together[key][:, 11]).tobytes()
        assert values[:, 1].tobytes() == np.ascontiguousarray(together[key][:, 4]).tobytes()


def test_a_policy_can_be_reset_for_other_episodes() -> None:
    policy = make_policy("scripted", SLIDE, PUSH, 0.3, 0.3)
    first = slide(policy, [0, 1])
    slide(policy, [5, 6, 7])
    np.testing.assert_array_equal(slide(policy, [0, 1])["actions"], first["actions"])


def test_the_script_for_object_slide_succeeds() -> None:
    assert slide_success(noise=0.0, random_share=0.0) > 0.97


def test_noise_and_random_episodes_leave_successes_and_failures() -> None:
    assert 0.7 < slide_success(noise=0.3, random_share=0.0) < 0.95
    assert 0.45 < slide_success(noise=0.3, random_share=0.3) < 0.75
    assert slide_success(noise=0.0, random_share=1.0) < 0.05


@pytest.mark.parametrize("steps", [1, 5, 60])
def test_the_script_for_object_slide_fits_other_lengths(steps: int) -> None:
    play = slide(make_policy("scripted", SLIDE, PUSH), list(range(50)), steps)
    assert np.isfinite(play["actions"]).all()
    if steps == 60:
        assert np.mean(play["rewards"][-1] == 0) > 0.97


@pytest.mark.parametrize(("distance", "steps"), [(0.05, 9), (1.0, 30), (4.0, 30), (8.0, 12)])
def test_launch_velocity_carries_the_object_over_the_distance(distance: float, steps: int) -> None:
    velocity = float(launch_velocity(np.array([distance]), np.array([steps]))[0])
    covered = 0.0
    for _ in range(steps):
        velocity = max(velocity - FRICTION_LOSS, 0.0)
        covered += velocity * TIME_STEP
    assert covered == pytest.approx(distance)


def test_the_script_for_fetch_succeeds() -> None:
    environment = make_environment(FETCH)
    _, action_space = describe_spaces(environment)
    policy = make_policy("scripted", FETCH, action_space)
    successes = 0
    for seed in range(20):
        now, _ = environment.reset(seed=seed)
        policy.reset(generators([seed]), 50)
        for _ in range(50):
            action = policy.act({key: value[None] for key, value in now.items()})[0]
            now, reward, *_ = environment.step(action)
        successes += reward == 0
    assert successes >= 18


def test_scripted_actions_for_fetch_do_not_depend_on_the_batch() -> None:
    _, action_space = describe_spaces(make_environment(FETCH))
    random = np.random.default_rng(0)
    batch = {
        "observation": random.normal(0, 0.02, (40, 25)),
        "achieved_goal": random.normal(0, 0.1, (40, 3)),
        "desired_goal": random.normal(0, 0.1, (40, 3)),
    }
    together = make_policy("scripted", FETCH, action_space, 0.3, 0.3)
    together.reset(generators(list(range(40))), 1)
    actions = together.act(batch)
    for seed in range(40):
        alone = make_policy("scripted", FETCH, action_space, 0.3, 0.3)
        alone.reset(generators([seed]), 1)
        row = alone.act({key: value[seed : seed + 1] for key, value in batch.items()})
        assert row.tobytes() == actions[seed].tobytes()


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (BoxSpace(low=(-2.0, 0.0), high=(2.0, 0.1)), 2),
        (BoxSpace(low=(-1.0,), high=(1.0,), dtype="float64"), 1),
    ],
)
def test_random_actions_fill_a_box(space: BoxSpace, size: int) -> None:
    policy = make_policy("random", "Any-v0", space)
    policy.reset(generators(list(range(50))), 40)
    actions = np.array([policy.act(None) for _ in range(40)])
    assert actions.shape == (40, 50, size)
    assert actions.dtype == space.dtype
    low, high = np.array(space.low), np.array(space.high)
    assert np.all((actions >= low) & (actions <= high))
    unit = (actions - low) / (high - low)
    np.testing.assert_allclose(unit.mean(axis=(0, 1)), 0.5, atol=4 * 0.289 / np.sqrt(2000))
    np.testing.assert_allclose(unit.std(axis=(0, 1)), 0.289, atol=0.02)


def test_random_choices_are_among_the_n() -> None:
    policy = make_policy("random", "Any-v0", DiscreteSpace(n=3, start=5))
    policy.reset(generators(list(range(50))), 10)
    actions = np.array([policy.act(None) for _ in range(10)])
    assert actions.shape == (10, 50)
    assert set(actions.ravel().tolist()) == {5, 6, 7}


def test_random_choices_can_be_played() -> None:
    environment = gymnasium.make("CartPole-v1")
    _, action_space = describe_spaces(environment)
    policy = make_policy("random", "CartPole-v1", action_space)
    policy.reset(generators([0]), 5)
    now, _ = environment.reset(seed=0)
    for _ in range(5):
        now, *_ = environment.step(policy.act(now[None])[0])


@pytest.mark.parametrize(
    ("name", "env_id", "space", "options", "message"),
    [
        ("scriptd", SLIDE, PUSH, {}, "did you mean scripted"),
        ("zzz", SLIDE, PUSH, {}, "known: random, scripted"),
        ("scripted", "Pendulum-v1", PUSH, {}, f"a script, {SLIDE} or {FETCH}, got Pendulum-v1"),
        ("scripted", SLIDE, DiscreteSpace(n=2), {}, "actions that are a Box"),
        ("scripted", SLIDE, PUSH, {"noise": -0.1}, "noise of at least 0"),
        ("scripted", SLIDE, PUSH, {"noise": float("nan")}, "noise of at least 0"),
        ("scripted", SLIDE, PUSH, {"random_share": 1.5}, "random_share between 0 and 1"),
        ("random", "Any-v0", BoxSpace(low=(0,), high=(np.inf,)), {}, "expected bounded actions"),
    ],
)
def test_what_a_policy_cannot_do_is_refused(
    name: str, env_id: str, space: ActionSpace, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_policy(name, env_id, space, **options)
    assert message in str(caught.value)


def test_noise_levels_and_random_episodes_mix() -> None:
    # The object is beyond its goal and the agent at rest, where the script itself stays still.
    batch = {
        "observation": np.tile(np.array([-3, 0, 4, 0], dtype=np.float32), (400, 1)),
        "achieved_goal": np.full((400, 1), 4, dtype=np.float32),
        "desired_goal": np.full((400, 1), 3, dtype=np.float32),
    }
    policy = make_policy("scripted", SLIDE, PUSH, noise=0.2, random_share=0.25)
    policy.reset(generators(list(range(400))), 200)
    levels = np.array([policy.act(batch)[:, 0] for _ in range(200)]).std(axis=0)
    is_random = levels > 0.4
    assert np.mean(is_random) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 400))
    np.testing.assert_allclose(levels[is_random], 1 / np.sqrt(3), atol=0.08)
    quantiles = np.quantile(levels[~is_random], [0.1, 0.5, 0.9])
    np.testing.assert_allclose(quantiles, [0.02, 0.1, 0.18], atol=0.02)


def test_random_choices_among_real_numbers() -> None:
    hand = BoxSpace(
        low=(-2, 0, 0, 0, -1),
        high=(2, 1, 1, 1, 3),
        one_hot=((1, 3),),
        integers=(4,),
        dtype="float32",
    )
    policy = make_policy("random", "elsewhere/Hand-v0", hand)
    policy.reset(generators(list(range(300))), 1)
    actions = policy.act(None)
    assert (actions[:, 1:4].sum(1) == 1).all()
    # Each of three choices a third of the time, each of five numbers a fifth.
    np.testing.assert_allclose(actions[:, 1:4].mean(0), 1 / 3, atol=0.1)
    numbers, counts = np.unique(actions[:, 4], return_counts=True)
    assert numbers.tolist() == [-1, 0, 1, 2, 3]
    np.testing.assert_allclose(counts / 300, 1 / 5, atol=0.1)
    assert len(np.unique(actions[:, 0])) == 300
    assert actions.dtype == np.float32
