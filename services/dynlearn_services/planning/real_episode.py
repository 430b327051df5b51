"""RealEpisode: an episode of an environment that may fail on the way.

Shapes: O observation, A action, G context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dynlearn_envs.drawing import draw_frame
from dynlearn_envs.environments import Environment, describe_spaces

if TYPE_CHECKING:
    from dynlearn.task import Task


class _Unusable(Exception):
    """What an environment gave and no planner can go on with."""


class RealEpisode:
    """An episode as it is played; one that cannot go on ends with a note.

    Attributes:
        observation: the last one, [O].
        context: of the task, [G].
        length: steps so far.
        total: the sum of rewards so far.
        is_success: what the environment says of the last step's success, where it does.
        is_over: whether it has ended.
        note: why it ended before its time, in one line; None where it did not.
        frames: pictures, where they were asked for.
    """

    def __init__(self, environment: Environment, task: Task, seed: int, pictures: bool = False):
        """Begin an episode.

        Raises:
            InvalidInput: a picture cannot be drawn on this machine.
        """
        space, _ = describe_spaces(environment)
        self._environment, self._pictures = environment, pictures
        self.observation: NDArray[np.floating] = np.zeros(
            space.observation.size, _floating(np.dtype(space.observation.dtype))
        )
        self.context: NDArray[np.floating] = np.zeros(space.goal.size if space.goal else 0)
        self.length, self.total = 0, 0.0
        self.is_success: bool | None = None
        self.is_over = False
        self.note: str | None = None
        self.frames: list[NDArray[np.uint8]] = []
        with self._ending_where_that_fails():
            raw, _ = environment.reset(seed=seed)
            self.context = _numbers("context", task.read_context(raw), None)
            self._see(raw)
        self._draw()

    def step(self, action: NDArray[np.floating]) -> None:
        """Take an action [A].

        Raises:
            InvalidInput: a picture cannot be drawn on this machine.
        """
        with self._ending_where_that_fails():
            raw, reward, terminated, truncated, info = self._environment.step(action)
            gained = _numbers("reward", np.asarray(reward).reshape(-1), (1,))
            self._see(raw)
            self.total += float(gained[0])
            self.length += 1
            self.is_over = bool(terminated or truncated)
            if "is_success" in info:
                self.is_success = bool(info["is_success"])
        self._draw()

    def end(self, note: str) -> None:
        """End it before its time."""
        self.is_over = True
        self.note = f"ended after {self.length} steps: {note}"

    @contextmanager
    def _ending_where_that_fails(self) -> Iterator[None]:
        try:
            yield
        except _Unusable as error:
            self.end(str(error))
        except (Exception, SystemExit) as error:
            # Whatever another's code raises, the other episodes are none of its business.
            reason = shorten(str(error), width=200)
            self.end(f"the environment raised {type(error).__name__}: {reason}")

    def _see(self, raw: Any) -> None:
        vector = raw["observation"] if isinstance(raw, dict) else raw
        self.observation = _numbers("observation", vector, self.observation.shape)

    def _draw(self) -> None:
        if self._pictures and self.note is None:
            self.frames.append(draw_frame(self._environment))


def _numbers(name: str, values: Any, shape: tuple[int, ...] | None) -> NDArray[np.floating]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or (shape is not None and array.shape != shape):
        expected = "numbers" if shape is None else f"numbers of shape {list(shape)}"
        raise _Unusable(
            f"expected {expected} as the environment's {name}, got {array.dtype} of shape "
            f"{list(array.shape)}"
        )
    if not np.isfinite(array).all():
        raise _Unusable(f"expected finite numbers as the environment's {name}, got NaN or infinity")
    return array.astype(_floating(array.dtype))


def _floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.kind == "f" and dtype.itemsize >= 4 else np.dtype(np.float32)
