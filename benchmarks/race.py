"""A race of trainers: each in a process of its own, one lap at a time, in turns."""

import multiprocessing
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection

from tqdm import tqdm

Turn = Callable[[Mapping[str, float]], None]
"""What a contender calls between laps, with what it measured on the last; it may then go on."""

Contender = Callable[[Turn], None]
"""Sets itself up and then trains without end, calling its `Turn` before every lap."""


@dataclass(frozen=True)
class Lap:
    """How long a lap took, and what the contender measured on it."""

    seconds: float
    measures: Mapping[str, float]


def race(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[Lap]]:
    """Run so many laps of each, one at a time, in another random order every round.

    A lap of each goes before, in which they set themselves up, and does not count.

    Raises:
        RuntimeError: a contender ended; its error is on stderr.
    """
    shuffle = random.Random(0)
    laps: dict[str, list[Lap]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        lanes = {name: _enter(contender, stack) for name, contender in contenders.items()}
        for _ in tqdm(range(1 + rounds), desc="rounds", disable=None):
            for name in shuffle.sample(list(lanes), len(lanes)):
                try:
                    lanes[name].send(None)
                    laps[name].append(lanes[name].recv())
                except (EOFError, OSError) as error:
                    raise RuntimeError(f"expected a lap of {name}, but it has ended") from error
    return {name: done[1:] for name, done in laps.items()}


def _enter(contender: Contender, stack: ExitStack) -> Connection:
    """Start a contender's process, which ends when the stack is left."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(contender, theirs), daemon=True)
    process.start()
    theirs.close()
    stack.callback(process.join)
    stack.callback(ours.close)
    return ours


def _run(contender: Contender, connection: Connection) -> None:
    began: float | None = None

    def turn(measures: Mapping[str, float]) -> None:
        nonlocal began
        if began is not None:
            connection.send(Lap(time.perf_counter() - began, dict(measures)))
        try:
            connection.recv()
        except EOFError:
            raise SystemExit from None
        began = time.perf_counter()

    contender(turn)
