"""Workers that die or hang: the same dataset whatever befell them, or the episode by its name."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.misbehaving import ENVIRONMENT, GOOD_STEPS
from dynlearn.config import CollectConfig
from dynlearn.data.header import DatasetHeader, read_header
from dynlearn.data.store import EpisodeStore
from dynlearn.errors import CorruptData
from dynlearn_envs.seeds import episode_seeds
from dynlearn_services.collection import lookout
from dynlearn_services.collection.run import collect
from dynlearn_services.collection.writer import CollectProgress

SEED, BAD = 5, 3
BAD_SEED, NEXT_SEED = (episode_seeds(SEED, BAD, attempt)[0] for attempt in range(2))


def config(kind: str, **changes: Any) -> CollectConfig:
    fields: dict[str, Any] = {
        "dataset": "d", "env": ENVIRONMENT, "policy": "random", "episodes": 12, "seed": SEED,
        "episodes_per_shard": 6, "env_kwargs": {"kind": kind, "bad_seeds": [BAD_SEED]},
    }  # fmt: skip
    return CollectConfig(**(fields | changes))


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def check(header: DatasetHeader, what: str, step: int = GOOD_STEPS) -> None:
    assert header.faults is not None
    (fault,) = header.faults.each
    assert (fault.episode, fault.seed, fault.step, fault.what) == (BAD, BAD_SEED, step, what)
    assert (fault.treatment, fault.replaced_by) == ("skipped", NEXT_SEED)


def test_whatever_the_workers_the_same_episodes_are_skipped(
    ray_session: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for workers in (1, 3):
        options = config("raise", on_error="skip", workers=workers)
        header = collect(options, str(tmp_path / str(workers)))
    check(header, "RuntimeError: the simulation has exploded")
    assert content(tmp_path / "1") == content(tmp_path / "3")
    assert "of 12 episodes, 1 skipped; dynlearn datasets show names them" in caplog.text
    EpisodeStore.open(tmp_path / "3").verify()


def test_a_stopped_collection_goes_on_with_its_faults(ray_session: None, tmp_path: Path) -> None:
    undisturbed = collect(config("raise", on_error="skip"), str(tmp_path / "undisturbed"))
    with pytest.raises(CorruptData, match="to play episode 3 to its end, got RuntimeError"):
        collect(config("raise", workers=1), str(tmp_path / "d"))
    seen: list[CollectProgress] = []

    def interrupt(progress: CollectProgress) -> None:
        seen.append(progress)
        if progress.episodes > BAD + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(
            config("raise", workers=1, resume=True, on_error="skip"), str(tmp_path / "d"), interrupt
        )
    assert seen[-1].faults == 1
    assert read_header(tmp_path / "d").faults is None
    header = collect(config("raise", resume=True, on_error="skip"), str(tmp_path / "d"))
    assert header == undisturbed
    assert content(tmp_path / "d") == content(tmp_path / "undisturbed")


def test_the_episode_that_kills_is_found_and_replaced(ray_session: None, tmp_path: Path) -> None:
    header = collect(config("os._exit", on_error="cut", workers=2), str(tmp_path / "d"))
    check(header, "the death of its process")
    assert header.episodes == 12
    EpisodeStore.open(tmp_path / "d").verify()


def test_the_episode_that_kills_is_named(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(CorruptData, match=f"at step 2 .its seed is {BAD_SEED}.; mend") as caught:
        collect(config("SIGSEGV", episodes=4, workers=1), str(tmp_path / "d"))
    assert "to play episode 3 to its end, got the death of its process" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_step_that_lets_nothing_else_run_is_a_fault_as_any_other(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_SECONDS_OF_GRACE", 1.0)
    options = config("hang in C", on_error="skip", workers=2, step_timeout=0.5)
    began = time.monotonic()
    check(collect(options, str(tmp_path / "d")), "a step of more than 0.5 s")
    assert time.monotonic() - began < 45


def test_a_step_that_hangs_is_told(
    ray_session: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lookout, "_SECONDS_UNTIL_WARNING", 0.1)
    caplog.set_level(logging.WARNING)
    options = config("hang", workers=1, step_timeout=3.0)
    with pytest.raises(CorruptData, match="episode 3 to its end, got a step of more than 3 s"):
        collect(options, str(tmp_path / "d"))
    assert f"has been at step 2 of episode {BAD} (its seed is {BAD_SEED}) for " in caplog.text
