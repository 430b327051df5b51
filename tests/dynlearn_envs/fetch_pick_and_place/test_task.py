from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dynlearn.task import find_task
from dynlearn_envs.environments import make_environment
from dynlearn_envs.fetch_pick_and_place.script import pick_and_place
from dynlearn_envs.fetch_pick_and_place.task import (
    COLUMNS,
    FINGER_POSITION,
    FINGER_VELOCITY,
    GRIPPER_POSITION,
    GRIPPER_VELOCITY,
    OBJECT_ANGULAR_VELOCITY,
    OBJECT_FROM_GRIPPER,
    OBJECT_POSITION,
    OBJECT_ROTATION,
    OBJECT_VELOCITY,
    TASK,
)

Array = NDArray[Any]
Observation = dict[str, Array]


def play(env_id: str, seed: int) -> tuple[list[Observation], list[Array], list[float]]:
    """Return the observations, actions and rewards of a scripted episode."""
    environment = make_environment(env_id)
    observations, actions, rewards = [environment.reset(seed=seed)[0]], [], []
    for steps_left in range(50, 0, -1):
        batch = {key: value[None] for key, value in observations[-1].items()}
        actions.append(pick_and_place(batch, steps_left)[0])
        observation, reward, *_ = environment.step(actions[-1])
        observations.append(observation)
        rewards.append(float(reward))
    return observations, actions, rewards


def transitions(
    observations: list[Observation], actions: list[Array]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    states = torch.from_numpy(np.array([part["observation"] for part in observations]))
    goal = torch.from_numpy(TASK.read_context(observations[0]))
    return states[:-1], torch.from_numpy(np.array(actions)), states[1:], goal


@pytest.mark.parametrize(
    ("env_id", "name"),
    [("FetchPickAndPlace-v4", "sparse"), ("FetchPickAndPlaceDense-v4", "dense")],
)
def test_rewards_and_success_are_the_environment_s(env_id: str, name: str) -> None:
    for seed in range(3):
        observations, actions, rewards = play(env_id, seed)
        steps = transitions(observations, actions)
        np.testing.assert_allclose(TASK.reward(name)(*steps), rewards, rtol=0, atol=1e-12)
        assert TASK.success(*steps)[-1]
        np.testing.assert_array_equal(TASK.success(*steps), TASK.reward("sparse")(*steps) == 0)


def test_contact_is_while_the_arm_moves_the_object() -> None:
    observations, actions, _ = play("FetchPickAndPlace-v4", seed=0)
    assert TASK.contact is not None
    contact = TASK.contact(*transitions(observations, actions)).numpy()
    closing = next(index for index, action in enumerate(actions) if action[3] < 0)
    assert not contact[:closing].any()
    assert contact[closing : closing + 10].sum() >= 7
    assert not contact[-3:].any()


def test_columns_are_what_their_names_say() -> None:
    observations, _, _ = play("FetchPickAndPlace-v4", seed=1)
    states = np.array([part["observation"] for part in observations])
    assert len(COLUMNS) == len(set(COLUMNS)) == states.shape[1] == 25
    np.testing.assert_array_equal(states[9, OBJECT_POSITION], observations[9]["achieved_goal"])
    np.testing.assert_allclose(
        states[:, OBJECT_FROM_GRIPPER], states[:, OBJECT_POSITION] - states[:, GRIPPER_POSITION]
    )
    slices = [
        (GRIPPER_POSITION, "gripper_x"),
        (OBJECT_POSITION, "object_x"),
        (OBJECT_FROM_GRIPPER, "object_from_gripper_x"),
        (FINGER_POSITION, "right_finger"),
        (OBJECT_ROTATION, "object_rotation_x"),
        (OBJECT_VELOCITY, "object_velocity_x"),
        (OBJECT_ANGULAR_VELOCITY, "object_angular_velocity_x"),
        (GRIPPER_VELOCITY, "gripper_velocity_x"),
        (FINGER_VELOCITY, "right_finger_velocity"),
    ]
    for columns, first_name in slices:
        assert COLUMNS[columns.start] == first_name
    # Velocities are displacements within a step, up to the acceleration in it.
    for columns, velocity in [
        (GRIPPER_POSITION, states[:, GRIPPER_VELOCITY]),
        (OBJECT_POSITION, states[:, OBJECT_VELOCITY] + states[:, GRIPPER_VELOCITY]),
        (FINGER_POSITION, states[:, FINGER_VELOCITY]),
    ]:
        displacement = np.diff(states[:, columns], axis=0).ravel()
        mean_velocity = ((velocity[1:] + velocity[:-1]) / 2).ravel()
        slope = (displacement @ mean_velocity) / (mean_velocity @ mean_velocity)
        assert np.corrcoef(displacement, mean_velocity)[0, 1] > 0.8
        assert 0.7 < slope < 1.5
    assert [COLUMNS[column] for column in TASK.target_columns] == [
        "object_x",
        "object_y",
        "object_z",
    ]


def test_task_is_found_by_its_environment() -> None:
    assert find_task("FetchPickAndPlace-v4") is TASK


def test_a_seed_plays_the_same_episode_in_a_new_and_in_a_used_environment() -> None:
    used = make_environment("FetchPickAndPlace-v4")
    actions = np.random.default_rng(0).uniform(-1, 1, (2, 50, 4)).astype(np.float32)
    for seed in (8, 9):
        last = [used.reset(seed=seed)[0], *(used.step(action)[0] for action in actions[seed - 8])]
    new = make_environment("FetchPickAndPlace-v4")
    first = [new.reset(seed=9)[0], *(new.step(action)[0] for action in actions[1])]
    for one, other in zip(first, last, strict=True):
        assert one["observation"].tobytes() == other["observation"].tobytes()
        assert one["desired_goal"].tobytes() == other["desired_goal"].tobytes()
