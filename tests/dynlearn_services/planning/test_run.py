from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dynlearn.config import PlanConfig
from dynlearn.errors import InvalidInput
from dynlearn.task import find_task
from dynlearn_envs.environments import draw_frame, make_environment
from dynlearn_envs.object_slide.truth import TrueSlide
from dynlearn_envs.registration import OBJECT_SLIDE
from dynlearn_services.demo import play_random, play_truth
from dynlearn_services.planning.pictures import draw_imagined, save_gif
from dynlearn_services.planning.run import play

PLAN = PlanConfig(model="none", env=OBJECT_SLIDE, episodes=20, reward="smooth", seed=0)


def push(observation: Tensor, context: Tensor, steps_left: int) -> Tensor:
    return torch.ones(len(observation), 1)


def test_the_planner_solves_the_environment_on_the_true_dynamics() -> None:
    assert play_truth(PLAN).successes.mean() >= 0.77


def test_random_actions_do_not() -> None:
    assert play_random(PLAN).successes.mean() <= 0.2


def test_episodes_follow_from_the_seed_alone() -> None:
    task = find_task(OBJECT_SLIDE)
    first, again = (play(task, push, episodes=3, seed=5) for _ in range(2))
    assert torch.equal(first.observations, again.observations)
    more = play(task, push, episodes=4, seed=5)
    assert torch.equal(first.observations, more.observations[:3])
    assert not torch.equal(first.observations, play(task, push, episodes=3, seed=6).observations)


def test_what_was_played_is_what_the_physics_say() -> None:
    played = play(find_task(OBJECT_SLIDE), push, episodes=2, seed=0)
    assert played.lengths.tolist() == [30, 30]
    expected = TrueSlide().step(played.observations[:, 0], played.actions[:, 0], None, None)
    torch.testing.assert_close(played.observations[:, 1], expected)
    assert (played.returns <= 0).all()
    assert not played.frames


def test_pictures_of_an_episode(tmp_path: Path) -> None:
    played = play(find_task(OBJECT_SLIDE), push, episodes=1, seed=0, pictures=True)
    save_gif(played.frames, tmp_path / "episode.gif")
    with Image.open(tmp_path / "episode.gif") as animation:
        assert animation.n_frames == 31
    draw_imagined(
        TrueSlide(),
        find_task(OBJECT_SLIDE),
        played.observations[0],
        played.actions[0],
        seed=0,
        path=tmp_path / "imagined.png",
    )
    with Image.open(tmp_path / "imagined.png") as figure:
        assert len(np.unique(np.asarray(figure))) > 10


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_every_named_reward_can_be_planned_for(reward: str) -> None:
    few = PLAN.model_copy(update={"reward": reward, "episodes": 2, "candidates": 16, "elites": 4})
    assert play_truth(few).returns.shape == (2,)


def test_an_environment_that_cannot_be_drawn_here_says_what_to_do() -> None:
    environment = make_environment("FetchPickAndPlace-v4", render_mode="rgb_array")
    environment.reset(seed=0)
    viewer = environment.unwrapped.mujoco_renderer
    viewer.render = Undrawable().render
    with pytest.raises(InvalidInput, match="MUJOCO_GL=egl"):
        draw_frame(environment)
    environment.close()


class Undrawable:
    """Fails as MuJoCo does where there is no GL; a machine of the tests may have one or not."""

    def render(self, mode: str) -> None:
        raise mujoco.FatalError("an OpenGL platform library has not been loaded")
