"""What is played after a worker was lost, and who is to blame."""

from typing import Any

import pytest

from dynlearn.config import CollectConfig
from dynlearn.errors import CorruptData, Unavailable
from dynlearn_envs.seeds import episode_seeds
from dynlearn_services.collection.blocks import Block, Loss, Task
from dynlearn_services.collection.watch import Place

SEED = 5


def config(on_error: Any = "skip") -> CollectConfig:
    return CollectConfig(dataset="d", env="E-v0", seed=SEED, on_error=on_error)


def task(**changes: Any) -> Task:
    return Task(Block(0, range(4, 8)), range(4, 8), **changes)


def died(episode: int | None = None, attempt: int = 0, step: int = 2) -> Loss:
    return Loss("death", None if episode is None else Place(episode, attempt, step))


def test_a_block_is_played_again_and_after_three_deaths_episode_by_episode() -> None:
    one = task()
    # What was noted last may be old.
    assert one.after(died(5), config()) == [one]
    assert one.after(died(), config("stop")) == [one]
    parts = one.after(died(5), config())
    assert [list(part.indices) for part in parts] == [[4], [5], [6], [7]]
    assert all(part.carefully and part.block is one.block for part in parts)


def test_an_episode_is_to_blame_the_second_time() -> None:
    one = Task(Block(0, range(4, 8)), [5], carefully=True)
    assert one.after(died(5), config()) == [one]
    assert one.condemned == {}
    assert one.after(died(5), config()) == [one]
    (fault,) = one.condemned.values()
    seeds = [episode_seeds(SEED, 5, attempt)[0] for attempt in range(3)]
    assert (fault.episode, fault.seed, fault.step, fault.what) == (5, seeds[0], 2, "death")
    assert (fault.treatment, fault.replaced_by) == ("skipped", seeds[1])
    # So is its next seed, each on its own.
    assert one.after(died(5, attempt=1), config()) == [one]
    assert one.after(died(5, attempt=1, step=-1), config()) == [one]
    assert [(fault.seed, fault.step) for fault in one.condemned.values()] == [
        (seeds[0], 2),
        (seeds[1], 0),
    ]


def test_where_it_is_to_stop_the_episode_is_named() -> None:
    one = Task(Block(0, range(4, 8)), [5], carefully=True)
    one.after(died(5), config("stop"))
    with pytest.raises(CorruptData, match="E-v0 to play episode 5 to its end, got death at step 2"):
        one.after(died(5), config("stop"))


def test_what_dies_before_it_has_begun_is_nobodys_fault() -> None:
    one = Task(Block(0, range(4, 8)), [5], carefully=True)
    # Of an episode that it had played before.
    for place in (died(), died(4)):
        one.deaths = 0
        assert one.after(place, config()) == [one]
        with pytest.raises(Unavailable, match="2 that died before they began episode 5: death"):
            one.after(place, config())


def test_a_step_that_takes_too_long_is_to_blame_at_once_where_it_is_known() -> None:
    one = task()
    assert one.after(Loss("too long", Place(6, 0, 1), is_stuck=True), config("cut")) == [one]
    assert one.condemned[6, 0].treatment == "skipped"
    # Side by side, or where no other thread was let run, it is not.
    for place in (Place(None, 0, 1), None):
        two = task(condemned=dict(one.condemned))
        parts = two.after(Loss("too long", place, is_stuck=True), config())
        assert [part.carefully for part in parts] == [True] * 4
        assert [list(part.condemned) for part in parts] == [[], [], [(6, 0)], []]


def test_seeds_come_to_an_end() -> None:
    one = task()
    for attempt in range(9):
        one.after(Loss("too long", Place(6, attempt, 1), is_stuck=True), config())
    with pytest.raises(CorruptData, match="episode 6 with one of 10 seeds, got too long at step 1"):
        one.after(Loss("too long", Place(6, 9, 1), is_stuck=True), config())
