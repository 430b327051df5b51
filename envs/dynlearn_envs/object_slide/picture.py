"""Pictures of ObjectSlide, drawn with Pillow: no display and no window are needed."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dynlearn_envs.object_slide.dynamics import AGENT_WALL, CONTACT_DISTANCE, LINE_END

WIDTH, HEIGHT = 640, 160
_SCALE = 2  # drawn this much larger, then shrunk, so that edges are smooth
_GROUND = 112.0
_MARGIN = 30.0

_PAPER = (250, 250, 247)
_INK = (60, 64, 72)
_PALE = (168, 172, 178)
_GOAL = (196, 231, 203)
_GOAL_EDGE = (84, 160, 102)
_AGENT = (45, 106, 179)
_OBJECT = (224, 122, 47)


def draw(
    agent: float, thing: float, goal: float, tolerance: float, time_step: int
) -> NDArray[np.uint8]:
    """Return a picture, [HEIGHT, WIDTH, 3], of agent, object and goal zone on the line.

    Args:
        agent: where the agent is.
        thing: where the object is.
        goal: the middle of the goal zone.
        tolerance: half the width of the goal zone.
        time_step: the number of steps since the start.
    """
    image = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE), _PAPER)
    pen = ImageDraw.Draw(image)
    reached = abs(thing - goal) <= tolerance

    _box(pen, goal - tolerance, goal + tolerance, 50, _GOAL_EDGE if reached else _GOAL)
    _line(pen, (goal, 62), (goal, _GROUND), _GOAL_EDGE)
    _line(pen, (-LINE_END, _GROUND), (LINE_END, _GROUND), _INK)
    for position in range(-5, 6):
        _line(pen, (position, _GROUND), (position, _GROUND + 6), _INK)
        _text(pen, (position, _GROUND + 10), f"{position}", "mt", _INK)
    for end in (-LINE_END, LINE_END):
        _line(pen, (end, 40), (end, _GROUND), _INK)
    _line(pen, (AGENT_WALL, 50), (AGENT_WALL, _GROUND), _PALE)
    _text(pen, (AGENT_WALL, 46), "agent's limit", "mb", _PALE)

    half = CONTACT_DISTANCE / 2
    _box(pen, agent - half, agent + half, 26, _AGENT)
    _box(pen, thing - half, thing + half, 26, _OBJECT)
    _text(pen, (-LINE_END, 10), "agent", "lt", _AGENT)
    _text(pen, (-LINE_END + 0.8, 10), "object", "lt", _OBJECT)
    _text(pen, (-LINE_END + 1.7, 10), "goal", "lt", _GOAL_EDGE)
    _text(pen, (LINE_END, 10), f"step {time_step}", "rt", _INK)
    return np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def _column(position: float) -> float:
    return _SCALE * (_MARGIN + (position + LINE_END) / (2 * LINE_END) * (WIDTH - 2 * _MARGIN))


def _box(
    pen: ImageDraw.ImageDraw, left: float, right: float, height: float, color: tuple[int, int, int]
) -> None:
    top, bottom = _SCALE * (_GROUND - height), _SCALE * _GROUND
    pen.rectangle((_column(left), top, _column(right), bottom), fill=color)


def _line(
    pen: ImageDraw.ImageDraw,
    start: tuple[float, float],
    end: tuple[float, float],
    color: tuple[int, int, int],
) -> None:
    ends = [(_column(position), row * _SCALE) for position, row in (start, end)]
    pen.line(ends, fill=color, width=2 * _SCALE)


def _text(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    anchor: str,
    color: tuple[int, int, int],
) -> None:
    position, row = place
    font = ImageFont.load_default(size=13 * _SCALE)
    pen.text((_column(position), row * _SCALE), text, fill=color, font=font, anchor=anchor)
