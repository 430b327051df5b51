"""Hooks: what a fit leaves to whoever runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dynlearn.training.group import GroupFactory
from dynlearn.training.member_group import MemberGroup
from dynlearn.training.progress import Progress


def _ignore(progress: Progress) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Hooks:
    """Where a fit saves, whom it tells, when it ends early, and where its members train.

    Attributes:
        checkpoint: the file to go on from where there is one, and to save into.
        on_progress: called after every validation.
        should_stop: asked every second or two; on True the state is saved and the fit ends.
        make_group: gives the groups of members, such as ones that train elsewhere.
    """

    checkpoint: Path | None = None
    on_progress: Callable[[Progress], None] = _ignore
    should_stop: Callable[[], bool] = _never
    make_group: GroupFactory = MemberGroup
