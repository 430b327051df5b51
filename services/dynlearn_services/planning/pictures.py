"""Pictures of played episodes: an animation, and imagination beside reality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from dynlearn.evaluation.figures import MODEL, REAL, panel_grid, save_figure
from dynlearn.rollout.dynamics import Dynamics, GroupedDynamics
from dynlearn.rollout.trajectory import rollout
from dynlearn.task import Task

_FRAME_MILLISECONDS = 100
_LAST_FRAME_MILLISECONDS = 1500
_PARTICLES = 50
_MAX_PANELS = 6


def save_gif(frames: list[NDArray[np.uint8]], path: Path) -> None:
    """Write frames [height, width, 3] as an animation that repeats."""
    images = [Image.fromarray(frame) for frame in frames]
    durations = [_FRAME_MILLISECONDS] * (len(images) - 1) + [_LAST_FRAME_MILLISECONDS]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)


def draw_imagined(
    dynamics: Dynamics | GroupedDynamics,
    task: Task,
    observations: torch.Tensor,
    actions: torch.Tensor,
    seed: int,
    path: Path,
) -> None:
    """Draw what the model imagines of an episode from its start, beside what happened.

    Args:
        dynamics: the model.
        task: names the columns and says which matter.
        observations: of the real episode, [T + 1, O].
        actions: of the real episode, [T, A].
        seed: of the particles.
        path: the PNG to write.
    """
    device = dynamics.device
    imagined = rollout(
        dynamics,
        observations[:1].to(device, getattr(dynamics, "observation_dtype", torch.float32)),
        actions[None, None].to(device),
        _PARTICLES,
        "tsinf",
        seed,
    ).particles[0, 0]
    trajectories = torch.cat((observations[0].expand(_PARTICLES, 1, -1), imagined.cpu()), 1)
    low, middle, high = np.quantile(trajectories.numpy(), [0.05, 0.5, 0.95], axis=0)
    size = observations.shape[1]
    others = (column for column in range(size) if column not in task.target_columns)
    shown = (*task.target_columns, *others)[:_MAX_PANELS]
    figure: Figure
    figure, axes = panel_grid(len(shown))
    steps = np.arange(len(observations))
    for panel, column in zip(axes, shown, strict=True):
        panel.fill_between(
            steps,
            low[:, column],
            high[:, column],
            color=MODEL,
            alpha=0.25,
            linewidth=0,
            label="imagined, 5% to 95%",
        )
        panel.plot(steps, middle[:, column], color=MODEL, label="imagined, median")
        panel.plot(steps, observations[:, column], color=REAL, linestyle="--", label="real")
        panel.set(title=task.column_labels[column], xlabel="step")
    axes[0].legend(fontsize="small")
    figure.suptitle("An episode imagined from its first state under the actions really taken")
    save_figure(figure, path)
