"""Environments that misbehave in one episode: does `collect` end in one line, or in equal data?

Every way of `benchmarks.misbehaving` is played under each of ``--on-error stop``, ``cut`` and
``skip``, by one worker and by three. Each cell of the table must be one line of error that names
the episode, or a finished dataset: of the same bytes whatever the workers, with the episode's fault
in its header. No cell may show a traceback or leave a process behind.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.misbehaving import (
    ENVIRONMENT,
    GOOD_STEPS,
    IN_RESET,
    IN_STEP,
    KILLS,
    OUT_OF_RANGE,
    UNUSUAL,
)
from benchmarks.report import print_figures, run_command
from dynlearn.data.header import DatasetHeader
from dynlearn.data.store import EpisodeStore
from dynlearn.errors import DynlearnError
from dynlearn_envs.seeds import episode_seeds
from dynlearn_services.cli.app import run
from dynlearn_services.ray_cluster import ray_cluster

FEW = ("raise", "observation NaN", "four values", "os._exit", "hang", "prints")
KINDS = (*IN_STEP, *IN_RESET, *UNUSUAL, OUT_OF_RANGE, "seeds in range")
BUDGETS = {"small": FEW, "full": KINDS}
TREATMENTS = ("stop", "cut", "skip")
WORKERS = (1, 3)
SEED, BAD = 5, 3
STEP_TIMEOUT = 1.0
HIGHEST_SEED = 99
_SECONDS_TO_END = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="small")
    kinds = BUDGETS[parser.parse_args().budget]
    began = time.perf_counter()
    columns = [(on_error, workers) for on_error in TREATMENTS for workers in WORKERS]
    cells: dict[tuple[str, str, int], Cell] = {}
    with tempfile.TemporaryDirectory() as folder:
        with ray_cluster(max(WORKERS) + 1):
            for kind in tqdm(kinds, "kinds", disable=None):
                for on_error, workers in columns:
                    cells[kind, on_error, workers] = play(kind, on_error, workers, Path(folder))
        left = processes_with(os.environ.get("RAY_AUTH_TOKEN", "no token"))
    problems = [
        f"{kind}, {on_error}, {workers} workers: {problem}"
        for (kind, on_error, workers), cell in cells.items()
        for problem in cell.problems
    ]
    problems += [
        f"{kind}, {on_error}: other bytes with {workers} workers than with {WORKERS[0]}"
        for (kind, on_error, workers), cell in cells.items()
        if cell.content != cells[kind, on_error, WORKERS[0]].content
    ]
    problems += [f"a process is left: {title}" for title in left]
    print(f"{'in episode 3':<24}" + "".join(f"{f'{name}, {n}':>16}" for name, n in columns))
    for kind in kinds:
        found = (cells[kind, on_error, workers] for on_error, workers in columns)
        print(f"{kind:<24}" + "".join(f"{cell.text:>16}" for cell in found))
    print(
        "\nline: one line of error; else the checksum of the finished dataset, c of a cut episode, "
        "s of a skipped one; and the seconds that it took\n"
    )
    for kind in kinds:
        print(f"{kind:<24}{cells[kind, 'stop', WORKERS[0]].line}")
    for problem in problems:
        print(f"PROBLEM {problem}")
    figures = {
        "cells": len(cells),
        "problems": len(problems),
        "seconds": time.perf_counter() - began,
    }
    print_figures("misbehaviour", figures)
    if problems:
        sys.exit(1)


@dataclass(frozen=True)
class Cell:
    """What became of one collection.

    Attributes:
        line: of error, if it ended in one.
        content: the dataset's checksum and faults, if it was finished.
        mark: how the bad episode was treated.
        seconds: that it took.
        problems: what must not be.
    """

    line: str
    content: str
    mark: str
    seconds: float
    problems: tuple[str, ...]

    @property
    def text(self) -> str:
        """What to print in a narrow column."""
        shown = f"{self.content[:6]} {self.mark:1}" if self.content else "line  "
        return f"{shown} {self.seconds:4.1f}"


def play(kind: str, on_error: str, workers: int, home: Path) -> Cell:
    """Collect with an environment that misbehaves in a way, and look at what comes of it."""
    name = f"{kind}-{on_error}-{workers}".replace(" ", "_")
    began = time.perf_counter()
    with captured() as printed:
        code = run([*options(kind), "--on-error", on_error, "--workers", str(workers),
                    "--dataset", name, "--home", str(home), "--json"])  # fmt: skip
        seconds = time.perf_counter() - began
        # What is said late counts as well.
        left = lasting_workers()
    output, errors = printed
    problems = ["a traceback"] if "Traceback" in output + errors else []
    problems += [f"a worker is left: {pid}" for pid in left]
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    if code:
        problems += line_problems(kind, on_error, code, output, lines)
        return Cell(" ".join(lines), "", "", seconds, tuple(problems))
    try:
        header = json.loads(output)
        store = EpisodeStore.open(home / "datasets" / name)
        store.verify()
    except (ValueError, DynlearnError) as error:
        return Cell("", "", "", seconds, (*problems, f"no dataset: {error}"))
    problems += [] if header["checksum"] == store.header.checksum else ["another checksum"]
    problems += dataset_problems(kind, on_error, store.header)
    faults = store.header.faults
    content = store.header.checksum + ("" if faults is None else faults.model_dump_json())
    mark = "" if faults is None else faults.each[0].treatment[0]
    return Cell("", content, mark, seconds, tuple(problems))


def options(kind: str) -> list[str]:
    """Return what `dynlearn collect` is asked for."""
    bad_seed, _ = episode_seeds(SEED, BAD)
    kwargs: dict[str, object] = {"kind": kind, "bad_seeds": [bad_seed]}
    more: list[str] = []
    if kind in (OUT_OF_RANGE, "seeds in range"):
        kwargs = {"highest": HIGHEST_SEED}
    if kind == "seeds in range":
        more = ["--seed-range", f"0:{HIGHEST_SEED}"]
    if kind.startswith("hang"):
        more = ["--step-timeout", str(STEP_TIMEOUT)]
    return [
        "collect", "--env", ENVIRONMENT, "--env-kwargs", json.dumps(kwargs), "--policy", "random",
        "--seed", str(SEED), "--episodes", "12", "--episodes-per-shard", "6", *more,
    ]  # fmt: skip


def line_problems(
    kind: str, on_error: str, code: int, output: str, lines: Sequence[str]
) -> Iterator[str]:
    """Say what is wrong with a collection that ended in an error."""
    if code not in (1, 2) or output:
        yield f"exit code {code} and {output!r} on standard output"
    if len(lines) != 1:
        yield f"{len(lines)} lines of error"
    if kind in UNUSUAL or kind == "seeds in range":
        yield f"an error where nothing is wrong: {lines}"
    elif kind != OUT_OF_RANGE:
        # Of seeds that are all out of range, none is better than another.
        if on_error != "stop":
            yield f"an error in spite of --on-error {on_error}: {lines}"
        seed, step = episode_seeds(SEED, BAD)[0], 0 if kind in IN_RESET else GOOD_STEPS
        for part in (ENVIRONMENT, f"episode {BAD} ", f"its seed is {seed}", f"at step {step} "):
            if not all(part in line for line in lines):
                yield f"an error that does not say {part!r}: {lines}"


def dataset_problems(kind: str, on_error: str, header: DatasetHeader) -> Iterator[str]:
    """Say what is wrong with a dataset that was finished."""
    if kind in UNUSUAL or kind == "seeds in range":
        if header.faults is not None:
            yield f"faults of what is only unusual: {header.faults}"
        return
    if on_error == "stop" or kind == OUT_OF_RANGE or header.faults is None:
        yield "finished in spite of its episode"
        return
    is_cut = on_error == "cut" and kind not in (*KILLS, *IN_RESET)
    step = 0 if kind in IN_RESET else GOOD_STEPS
    expected = (BAD, *(episode_seeds(SEED, BAD)[:1]), step, "cut" if is_cut else "skipped")
    found = [(each.episode, each.seed, each.step, each.treatment) for each in header.faults.each]
    if found != [expected]:
        yield f"expected the fault {expected}, got {found}"


@contextmanager
def captured() -> Iterator[list[str]]:
    """Give what this process and those that it starts print, once the block is over."""
    printed: list[str] = []
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        kept = [os.dup(1), os.dup(2)]
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        try:
            yield printed
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, place in zip(kept, (1, 2), strict=True):
                os.dup2(descriptor, place)
                os.close(descriptor)
            for file in (output, errors):
                file.seek(0)
                printed.append(file.read().decode())


def lasting_workers() -> list[int]:
    """Return the workers' processes that have not ended after some seconds."""
    end = time.monotonic() + _SECONDS_TO_END
    while (found := _workers()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _workers() -> list[int]:
    token = os.environ.get("RAY_AUTH_TOKEN", "").encode()
    return [
        int(folder.name)
        for folder in _processes()
        if _read(folder / "cmdline").startswith(b"ray::CollectionWorker")
        and token in _read(folder / "environ")
    ]


def processes_with(secret: str) -> list[str]:
    """Return the titles of other processes in whose environment a text still is after a while."""
    end = time.monotonic() + _SECONDS_TO_END
    found = ["?"]
    while found and time.monotonic() < end:
        time.sleep(0.1)
        found = [
            _read(folder / "cmdline").replace(b"\0", b" ").decode(errors="replace")
            for folder in _processes()
            if secret.encode() in _read(folder / "environ") and int(folder.name) != os.getpid()
        ]
    return found


def _processes() -> list[Path]:
    return [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        # Ended by now, or another's.
        return b""


if __name__ == "__main__":
    run_command(main)
