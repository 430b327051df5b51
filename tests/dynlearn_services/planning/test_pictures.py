from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dynlearn.errors import InvalidInput
from dynlearn.task import find_task
from dynlearn_envs.drawing import draw_frame
from dynlearn_envs.environments import make_environment
from dynlearn_envs.object_slide.truth import TrueSlide
from dynlearn_envs.registration import OBJECT_SLIDE
from dynlearn_services.planning.episodes import making, play
from dynlearn_services.planning.pictures import draw_imagined, save_gif


def push(observation: Tensor, context: Tensor, steps_left: int) -> Tensor:
    return torch.ones(len(observation), 1)


def test_pictures_of_an_episode(tmp_path: Path) -> None:
    with making(OBJECT_SLIDE, 1, pictures=True) as environments:
        played = play(find_task(OBJECT_SLIDE), environments, push, seed=0, pictures=True)
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
