"""An episode that misbehaves: named in one line, cut or skipped, whichever block it is in."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.misbehaving import ENVIRONMENT, GOOD_STEPS, STEPS, UNUSUAL
from dynlearn.config import CollectConfig
from dynlearn.data.faults import EpisodeFault
from dynlearn.errors import CorruptData
from dynlearn_envs.seeds import episode_seeds
from dynlearn_services.collection.worker import CollectionWorker

SEED, BAD = 5, 3
BAD_SEED, NEXT_SEED, THIRD_SEED = (episode_seeds(SEED, BAD, attempt)[0] for attempt in range(3))


def worker(kind: str, bad_seeds: tuple[int, ...] = (BAD_SEED,), **changes: Any) -> CollectionWorker:
    config = CollectConfig(
        dataset="d", env=ENVIRONMENT, policy="random", seed=SEED,
        env_kwargs={"kind": kind, "bad_seeds": list(bad_seeds)}, **changes,
    )  # fmt: skip
    return CollectionWorker(config, 2 * STEPS)


FAULTS = [
    ("raise", "RuntimeError: the simulation has exploded", GOOD_STEPS),
    ("raise beyond Exception", "Stop: now", GOOD_STEPS),
    ("raise in reset", "OSError: no such simulator", 0),
    ("reset without info", "expected observations of shape (2,)", 0),
    ("sys.exit", "SystemExit: 3", GOOD_STEPS),
    ("observation NaN", "observations that are not finite", GOOD_STEPS),
    ("observation infinite", "observations that are not finite", GOOD_STEPS),
    ("observation of shape 3", "expected observations of shape (2,)", GOOD_STEPS),
    ("observation complex", "expected observations of numbers, got complex64", GOOD_STEPS),
    ("observation of texts", "expected observations of numbers, got <U5", GOOD_STEPS),
    ("observation of digits", "expected observations of numbers, got <U3", GOOD_STEPS),
    ("observation None", "expected observations of shape (2,)", GOOD_STEPS),
    ("reward of shape 2", "expected one of rewards a step, got them of shape (2,)", GOOD_STEPS),
    ("reward NaN", "rewards that are not finite", GOOD_STEPS),
    ("reward text", "expected rewards of numbers, got <U3", GOOD_STEPS),
    ("end is a text", "expected terminated of numbers, got <U2", GOOD_STEPS),
    ("four values", "ValueError: not enough values to unpack", GOOD_STEPS),
    ("nothing", "TypeError: cannot unpack", GOOD_STEPS),
]


@pytest.mark.parametrize(("kind", "what", "step"), FAULTS)
@pytest.mark.parametrize("indices", [range(6), range(3, 4)], ids=["many", "one"])
def test_the_episode_that_fails_is_named_in_one_line(
    kind: str, what: str, step: int, indices: range
) -> None:
    with pytest.raises(CorruptData) as caught:
        worker(kind).play(indices)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"expected {ENVIRONMENT} to play episode {BAD} to its end, got {what}")
    assert f" at step {step} (its seed is {BAD_SEED}); " in line
    assert "--on-error cut or skip, and go on with --resume" in line


@pytest.mark.parametrize(("kind", "what", "step"), FAULTS)
def test_it_is_cut_after_its_last_good_step_or_skipped(kind: str, what: str, step: int) -> None:
    good = worker("good").play(range(6)).table
    for on_error in ("cut", "skip"):
        table, _, (fault,) = worker(kind, on_error=on_error).play(range(6))
        assert (fault.episode, fault.seed, fault.step) == (BAD, BAD_SEED, step)
        assert what in fault.what
        others = [0, 1, 2, 4, 5]
        assert table.select(others).digests() == good.select(others).digests()
        if on_error == "cut" and step:
            assert (fault.treatment, fault.replaced_by) == ("cut", None)
            episode = list(table)[BAD]
            assert episode.seed == BAD_SEED
            assert episode.observations[:, 0].tolist() == [0, 1, 2]
            assert episode.truncated.tolist() == [False, True]
            assert not episode.terminated.any()
        else:
            assert (fault.treatment, fault.replaced_by) == ("skipped", NEXT_SEED)
            assert table.seeds[BAD] == NEXT_SEED
            assert table.lengths[BAD] == STEPS


@pytest.mark.parametrize("on_error", ["cut", "skip"])
def test_a_bad_episode_is_the_same_in_any_block_and_after_any_other(on_error: str) -> None:
    def play(*blocks: list[int]) -> Mapping[int, tuple[bytes, tuple[EpisodeFault, ...]]]:
        one = worker("observation NaN", (BAD_SEED, NEXT_SEED), on_error=on_error)
        found = {}
        for block in blocks:
            table, _, faults = one.play(block)
            for index, digest in zip(block, table.digests(), strict=True):
                own = tuple(fault for fault in faults if fault.episode == index)
                found[index] = digest, own
        return found

    together = play([0, 1, 2, 3, 4, 5])
    assert together == play([3], [5, 4], [0, 1, 2])
    assert [fault.seed for fault in together[BAD][1]] == (
        [BAD_SEED, NEXT_SEED] if on_error == "skip" else [BAD_SEED]
    )


def test_seeds_are_replaced_until_one_is_good_but_not_for_ever() -> None:
    table, _, faults = worker("raise", (BAD_SEED, NEXT_SEED), on_error="skip").play([BAD])
    assert [(fault.seed, fault.replaced_by) for fault in faults] == [
        (BAD_SEED, NEXT_SEED),
        (NEXT_SEED, THIRD_SEED),
    ]
    assert table.seeds.tolist() == [THIRD_SEED]
    every = tuple(episode_seeds(SEED, BAD, attempt)[0] for attempt in range(10))
    with pytest.raises(CorruptData, match=r"episode 3 with one of 10 seeds, .* with the last; "):
        worker("raise", every, on_error="skip").play([BAD])


def test_an_attempt_that_is_condemned_is_not_made() -> None:
    fault = EpisodeFault(
        episode=BAD, seed=BAD_SEED, step=1, what="death", treatment="skipped", replaced_by=NEXT_SEED
    )
    played = worker("good", on_error="skip").play([2, BAD], {(BAD, 0): fault})
    assert played.faults == (fault,)
    assert played.table.seeds.tolist() == [episode_seeds(SEED, 2)[0], NEXT_SEED]


def test_what_went_wrong_first_is_named_and_nothing_after_it_is_kept() -> None:
    class Late(CollectionWorker):
        def _open(self) -> Any:
            environment: Any = super()._open()
            inner = environment.unwrapped
            plain = inner.step
            inner.step = lambda action: self._late(plain(action))
            return environment

        def _late(self, step: Any) -> Any:
            observation, *rest = step
            if observation[0] == 4:
                raise RuntimeError("because of the NaN")
            if observation[0] == 2:
                observation[1] = np.nan
            return observation, *rest

    plain = worker("good", on_error="cut")
    late = Late(plain._config, 2 * STEPS)
    table, _, (fault,) = late.play([0])
    assert (fault.step, fault.what) == (1, "observations that are not finite")
    assert table.lengths.tolist() == [1]


def test_what_an_error_says_does_not_depend_on_the_process() -> None:
    class Named(CollectionWorker):
        def _open(self) -> Any:
            environment: Any = super()._open()

            def step(action: Any) -> Any:
                raise RuntimeError(f"bad {object()}")

            environment.unwrapped.step = step
            return environment

    with pytest.raises(CorruptData, match="bad <object object at 0x> at step 0"):
        Named(worker("good")._config, 2 * STEPS).play([0])


@pytest.mark.parametrize("kind", ["good", "lists", "reward of shape 1"])
def test_what_is_only_unusual_is_taken(kind: str) -> None:
    assert kind == "good" or kind in UNUSUAL
    table, _, faults = worker(kind).play(range(6))
    assert table.lengths.tolist() == [STEPS] * 6
    assert table.rewards.tolist() == [1.0] * 30
    assert table.observations[:6, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert faults == ()


def test_seeds_within_a_range_are_those_of_the_episodes() -> None:
    table = worker("good", seed_range="7:9").play(range(40)).table
    assert set(table.seeds.tolist()) == {7, 8, 9}
    own = CollectionWorker(
        CollectConfig(
            dataset="d", env=ENVIRONMENT, policy="random", seed=SEED, seed_range=(0, 99),
            env_kwargs={"highest": 99},
        ),
        2 * STEPS,
    )  # fmt: skip
    seeds = own.play(range(40)).table.seeds
    assert len(set(seeds.tolist())) > 20
    assert seeds.tolist() == [episode_seeds(SEED, index, 0, (0, 99))[0] for index in range(40)]


_OTHER = """
import gymnasium
from benchmarks.misbehaving import Misbehaving
gymnasium.register("Other-v0", lambda: Misbehaving({kind!r}), max_episode_steps=2)
"""


def test_workers_import_what_the_driver_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker finds a package of the same name in the current folder, where Ray looks first.
    places = {name: str(tmp_path / name) for name in ("of the driver", "current")}
    for name, place in places.items():
        Path(place).mkdir()
        Path(place, "other_environments.py").write_text(_OTHER.format(kind=name))
    monkeypatch.setattr(sys, "path", [places["current"], *sys.path])
    config = CollectConfig(dataset="d", env="other_environments:Other-v0", policy="random")
    CollectionWorker(config, 2, [places["of the driver"], *sys.path]).play([0])
    assert sys.modules["other_environments"].__file__ == (
        f"{places['of the driver']}/other_environments.py"
    )
