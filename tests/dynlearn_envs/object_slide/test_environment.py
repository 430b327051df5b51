from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from dynlearn.errors import InvalidInput
from dynlearn.task import find_task
from dynlearn_envs.environments import make_environment
from dynlearn_envs.object_slide.environment import ObjectSlideEnv, ObjectSlideVectorEnv
from dynlearn_envs.object_slide.task import TASK

Array = NDArray[Any]


def random_actions(*shape: int) -> Array:
    return np.random.default_rng(0).uniform(-1.2, 1.2, (*shape, 1)).astype(np.float32)


def test_gymnasium_s_checker_finds_nothing_to_warn_of() -> None:
    check_env(make_environment("dynlearn/ObjectSlide-v1").unwrapped)


def test_vector_and_scalar_play_the_same_episode_bit_for_bit() -> None:
    seeds = [3, 2**31 - 1, 0, 77]
    actions = random_actions(30, 4)
    together = ObjectSlideVectorEnv(4)
    vector_play = [together.reset(seed=seeds)[0]]
    vector_ends = []
    for action in actions:
        observation, reward, terminated, truncated, _ = together.step(action)
        vector_play.append(observation)
        vector_ends.append((reward, terminated, truncated))

    for index, seed in enumerate(seeds):
        alone = make_environment("dynlearn/ObjectSlide-v1")
        scalar_play = [alone.reset(seed=seed)[0]]
        for time_step, action in enumerate(actions[:, index]):
            observation, *end, _ = alone.step(action)
            scalar_play.append(observation)
            assert end == [part[index] for part in vector_ends[time_step]]
        for scalar, vector in zip(scalar_play, vector_play, strict=True):
            for key in ("observation", "achieved_goal", "desired_goal"):
                assert scalar[key].dtype == vector[key].dtype == np.float32
                assert scalar[key].tobytes() == vector[key][index].tobytes()
        assert end[1:] == [False, True]


def test_a_sub_environment_s_second_episode_goes_on_with_its_own_generator() -> None:
    together, alone = ObjectSlideVectorEnv(2), ObjectSlideEnv()
    together.reset(seed=[5, 6])
    alone.reset(seed=6)
    np.testing.assert_array_equal(
        together.reset()[0]["observation"][1], alone.reset()[0]["observation"]
    )


def test_one_seed_stands_for_consecutive_seeds() -> None:
    first, _ = ObjectSlideVectorEnv(3).reset(seed=7)
    second, _ = ObjectSlideVectorEnv(3).reset(seed=[7, 8, 9])
    np.testing.assert_array_equal(first["observation"], second["observation"])


def test_reset_mask_restarts_only_the_named_sub_environments() -> None:
    environment = ObjectSlideVectorEnv(3, max_episode_steps=5)
    environment.reset(seed=0)
    for action in random_actions(4, 3):
        before, *_ = environment.step(action)
    mask = np.array([False, True, False])
    after, _ = environment.reset(seed=[None, 1, None], options={"reset_mask": mask})
    np.testing.assert_array_equal(after["observation"][~mask], before["observation"][~mask])
    expected, _ = ObjectSlideEnv().reset(seed=1)
    np.testing.assert_array_equal(after["observation"][1], expected["observation"])
    *_, truncated, _ = environment.step(random_actions(3))
    assert truncated.tolist() == [True, False, True]


def test_a_finished_episode_must_be_reset_before_the_next_step() -> None:
    environment = ObjectSlideVectorEnv(2, max_episode_steps=1)
    with pytest.raises(InvalidInput, match="2 that are over or not begun"):
        environment.step(random_actions(2))
    environment.reset(seed=0)
    environment.step(random_actions(2))
    environment.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(InvalidInput, match=r"1 that are over .* sub-environment 1"):
        environment.step(random_actions(2))


def test_the_vector_environment_says_what_a_collector_may_rely_on() -> None:
    environment = gymnasium.make_vec("dynlearn/ObjectSlide-v1", num_envs=3)
    assert environment.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert environment.metadata["episode_seeds"] is True
    observations, _ = environment.reset(seed=0)
    assert observations in environment.observation_space
    assert environment.action_space.shape == (3, 1)


def test_observations_handed_out_are_not_changed_by_later_steps() -> None:
    environment = ObjectSlideVectorEnv(2)
    first, _ = environment.reset(seed=0)
    kept = {key: value.copy() for key, value in first.items()}
    for action in random_actions(10, 2):
        environment.step(action)
    environment.reset()
    for key, value in first.items():
        np.testing.assert_array_equal(value, kept[key])


@pytest.mark.parametrize(
    "action", [np.zeros(2), np.zeros((1, 1)), np.array([np.nan]), np.array([np.inf])]
)
def test_actions_of_another_shape_or_not_finite_are_refused(action: Any) -> None:
    environment = ObjectSlideEnv()
    environment.reset(seed=0)
    with pytest.raises(InvalidInput, match=r"expected finite actions of shape \(1,\)"):
        environment.step(action)


def test_a_step_before_the_first_reset_is_refused() -> None:
    with pytest.raises(InvalidInput, match="call reset"):
        ObjectSlideEnv().step(np.zeros(1, dtype=np.float32))


@pytest.mark.parametrize("mask", [[True], np.array([1, 0]), np.array([False, False])])
def test_masks_that_do_not_fit_are_refused(mask: Any) -> None:
    with pytest.raises(InvalidInput, match="reset_mask of booleans"):
        ObjectSlideVectorEnv(2).reset(options={"reset_mask": mask})


def test_seeds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="expected 2 seeds, got 3"):
        ObjectSlideVectorEnv(2).reset(seed=[1, 2, 3])


def test_reward_is_0_within_half_a_metre_of_the_goal() -> None:
    achieved = np.array([[1.0], [1.5], [1.75], [0.25]])
    rewards = ObjectSlideEnv().compute_reward(achieved, np.ones((4, 1)), {})
    assert rewards.tolist() == [0.0, 0.0, -1.0, -1.0]


def test_pictures_show_agent_object_and_goal_where_they_are() -> None:
    environment = ObjectSlideVectorEnv(2, render_mode="rgb_array")
    observations, _ = environment.reset(seed=0)
    alone = make_environment("dynlearn/ObjectSlide-v1", render_mode="rgb_array")
    alone.reset(seed=1)
    frames = environment.render()
    assert frames is not None
    assert len(frames) == 2
    assert np.array_equal(frames[1], cast(Array, alone.render()))
    assert frames[0].shape == (160, 640, 3)
    assert frames[0].dtype == np.uint8

    agent, _, thing, _ = observations["observation"][0]
    goal = observations["desired_goal"][0, 0]
    for position, color in [(agent, (45, 106, 179)), (thing, (224, 122, 47))]:
        assert tuple(frames[0][100, round(30 + 58 * (position + 5))]) == color
    inside = frames[0][70, round(30 + 58 * (goal - 0.4 + 5))]
    assert inside[1] > inside[0]
    alone.step(np.ones(1, dtype=np.float32))
    assert not np.array_equal(frames[1], cast(Array, alone.render()))


def test_without_a_render_mode_there_is_no_picture() -> None:
    environment = ObjectSlideEnv()
    environment.reset()
    assert environment.render() is None
    assert ObjectSlideVectorEnv(1).render() is None


def test_task_is_found_and_its_functions_agree_with_the_environment() -> None:
    task = find_task("dynlearn/ObjectSlide-v1")
    assert task is TASK
    assert task.termination is None
    assert len(task.observation_columns) == 4
    assert task.observation_columns[task.target_columns[0]] == "object_position"

    environment = ObjectSlideVectorEnv(500)
    before, _ = environment.reset(seed=0)
    rewarded = 0
    for _ in range(30):
        # Full speed ahead: many objects reach their goal.
        action = np.ones((500, 1), dtype=np.float32)
        after, rewards, *_ = environment.step(action)
        transition = (
            torch.from_numpy(before["observation"]),
            torch.from_numpy(action),
            torch.from_numpy(after["observation"]),
            torch.from_numpy(task.read_context(before)),
        )
        np.testing.assert_array_equal(task.reward()(*transition), rewards)
        np.testing.assert_array_equal(task.success(*transition), rewards == 0)
        np.testing.assert_array_equal(
            task.reward("dense")(*transition),
            -np.abs(after["achieved_goal"] - after["desired_goal"])[:, 0],
        )
        before = after
        rewarded += int(np.count_nonzero(rewards == 0))
    assert rewarded > 100


def test_task_reads_the_goal_of_one_observation_and_takes_any_batch_dimensions() -> None:
    observation, _ = ObjectSlideEnv().reset(seed=0)
    goal = torch.from_numpy(TASK.read_context(observation))
    assert goal.shape == (1,)
    states = torch.zeros(2, 3, 4)
    assert TASK.reward("dense")(states, torch.zeros(2, 3, 1), states, goal).shape == (2, 3)
