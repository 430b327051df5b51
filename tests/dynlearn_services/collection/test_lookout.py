"""When a worker is ended, and when it is only spoken of."""

import logging
import time

import pytest

from dynlearn.config import CollectConfig
from dynlearn_envs.seeds import episode_seeds
from dynlearn_services.collection import lookout
from dynlearn_services.collection.blocks import Block, Loss, Task
from dynlearn_services.collection.lookout import Lookout
from dynlearn_services.collection.watch import Place, Sighting

TASK = Task(Block(0, range(4)), range(4))
CAREFUL = Task(Block(0, range(4)), [2], carefully=True)


class World:
    """A clock, and what a worker has noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now, self.noted, self.looks = 0.0, Sighting(1, None, 0.0), 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(lookout, "last_sighting", self.look)

    def look(self, key: str) -> Sighting:
        self.looks += 1
        return self.noted

    def see(self, place: Place | None, seconds: float) -> None:
        self.noted = Sighting(self.noted.beat + 1, place, seconds)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def make(step_timeout: float | None = None) -> Lookout:
    return Lookout(CollectConfig(dataset="d", env="E-v0", step_timeout=step_timeout), "key")


def test_a_step_that_takes_too_long_is_found_and_not_before(world: World) -> None:
    one = make(60.0)
    for seconds in range(1, 60):
        world.now += 2.0
        world.see(Place(2, 0, 7), float(seconds))
        assert one.look(TASK) is None
    world.now += 2.0
    world.see(Place(2, 0, 7), 61.0)
    assert one.look(TASK) == Loss("a step of more than 60 s", Place(2, 0, 7), is_stuck=True)


def test_who_notes_nothing_any_more_is_stuck_where_nobody_knows(world: World) -> None:
    for task, place in ((TASK, None), (CAREFUL, Place(2, 0, 7))):
        one = make(60.0)
        world.now += 100.0
        world.see(Place(2, 0, 7), 0.0)
        assert one.look(task) is None
        world.now += 69.0
        assert one.look(task) is None
        world.now += 2.0
        assert one.look(task) == Loss("a step of more than 60 s", place, is_stuck=True)


def test_nobody_is_asked_while_blocks_arrive(world: World) -> None:
    one = make()
    for _ in range(10):
        one.begin()
        world.now += 20.0
        assert one.look(TASK) is None
    assert world.looks == 0


def test_a_step_that_takes_long_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    one = make()
    seed = episode_seeds(0, 2)[0]
    for seconds in (20.0, 31.0, 40.0, 5000.0):
        world.now += 50.0
        world.see(Place(2, 0, 7), seconds)
        assert one.look(TASK) is None
    assert caplog.messages == [
        f"warning: E-v0 has been at step 7 of episode 2 (its seed is {seed}) for 31 s; "
        "--step-timeout ends steps that take too long"
    ]
    world.now += 50.0
    world.see(Place(None, 0, 3), 32.0)
    assert one.look(TASK) is None
    assert "has been at step 3 of episodes 0 to 3 for 32 s" in caplog.messages[1]
