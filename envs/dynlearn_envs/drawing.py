"""Pictures of environments, and what to do where they cannot be drawn."""

from __future__ import annotations

import sys
import traceback
from textwrap import shorten
from typing import Any, cast

import gymnasium
import numpy as np
from numpy.typing import NDArray

from dynlearn.errors import InvalidInput

DRAWING_MEND = (
    "for MuJoCo without a screen install libEGL and set MUJOCO_GL=egl, or go without pictures "
    "(--no-pictures)"
)


def is_of_drawing(error: BaseException) -> bool:
    """Whether it is what importing MuJoCo ends in where MUJOCO_GL names a missing library."""
    frames = traceback.walk_tb(error.__traceback__)
    packages = {frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in frames}
    return not packages.isdisjoint({"mujoco", "OpenGL"}) and isinstance(
        error, AttributeError | ImportError | RuntimeError
    )


def draw_frame(environment: gymnasium.Env[Any, Any]) -> NDArray[np.uint8]:
    """Return a picture of an environment made with ``rgb_array``, [height, width, 3].

    Raises:
        InvalidInput: it cannot be drawn on this machine.
    """
    failures: list[type[Exception]] = [
        gymnasium.error.Error,
        AttributeError,
        ImportError,
        OSError,
        RuntimeError,
    ]
    if "mujoco" in sys.modules:
        failures.append(sys.modules["mujoco"].FatalError)
    try:
        return cast(NDArray[np.uint8], environment.render())
    except tuple(failures) as error:
        raise InvalidInput(
            "expected an environment that can be drawn here, got: "
            f"{shorten(str(error), width=300)}; {DRAWING_MEND}"
        ) from error
