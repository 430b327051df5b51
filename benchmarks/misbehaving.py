"""An environment that counts its steps, and misbehaves in some episodes, in any of many ways.

It is registered on import, as a user's own package would; which episodes are bad is said by the
seeds of their resets.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

ENVIRONMENT = "benchmarks.misbehaving:Misbehaving-v0"
GOOD_STEPS = 2
"""After which a bad episode misbehaves, if it does so in a step."""
STEPS = 5
"""Of an episode."""


class Stop(BaseException):
    """An error that `except Exception` does not catch."""


def _raise(error: BaseException) -> Any:
    raise error


def _wait_for_ever(step: tuple[Any, ...]) -> Any:
    while True:
        time.sleep(1)


def _hold_the_interpreter(step: tuple[Any, ...]) -> Any:
    # Unlike `CDLL` it lets no other thread run.
    ctypes.PyDLL(None).sleep(10_000)


def _print(step: tuple[Any, ...]) -> Any:
    print("{a line of Python}", flush=True)
    os.write(1, b"{a line of the system}\n")
    libc = ctypes.CDLL(None)
    libc.printf(b"{a line of C}\n")
    return step


def _with(position: int, value: Any) -> Callable[[tuple[Any, ...]], Any]:
    """Return a function that puts ``value`` into what a step gives."""
    return lambda step: (*step[:position], value, *step[position + 1 :])


IN_STEP: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "raise": lambda step: _raise(RuntimeError("the simulation\nhas exploded")),
    "raise beyond Exception": lambda step: _raise(Stop("now")),
    "observation NaN": _with(0, np.array([1, np.nan], np.float32)),
    "observation infinite": _with(0, np.array([-np.inf, 1], np.float32)),
    "observation of shape 3": _with(0, np.zeros(3, np.float32)),
    "observation complex": _with(0, np.zeros(2, np.complex64)),
    "observation of texts": _with(0, np.array(["left", "right"])),
    "observation of digits": _with(0, np.array(["1.0", "2.0"])),
    "observation None": _with(0, None),
    "reward of shape 2": _with(1, np.ones(2)),
    "reward NaN": _with(1, np.nan),
    "reward text": _with(1, "1.0"),
    "end is a text": _with(2, "no"),
    "four values": lambda step: (step[0], step[1], False, {}),
    "nothing": lambda step: None,
    "sys.exit": lambda step: sys.exit(3),
    "os._exit": lambda step: os._exit(3),
    "SIGSEGV": lambda step: os.kill(os.getpid(), signal.SIGSEGV),
    "SIGKILL": lambda step: os.kill(os.getpid(), signal.SIGKILL),
    "hang": _wait_for_ever,
    "hang in C": _hold_the_interpreter,
}
IN_RESET = ("raise in reset", "reset without info", "os._exit in reset")
KILLS = ("os._exit", "SIGSEGV", "SIGKILL", "hang", "hang in C", "os._exit in reset")
"""What no process survives: of such an episode nothing is known to be good."""
OUT_OF_RANGE = "seeds out of range"
UNUSUAL: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "lists": lambda step: (step[0].tolist(), *step[1:]),
    "reward of shape 1": lambda step: (step[0], np.array([step[1]]), *step[2:]),
    "prints": _print,
}
"""What is taken as it is."""


class Misbehaving(gymnasium.Env[Any, Any]):
    """Misbehaves in episodes whose seed is among ``bad_seeds``, in the way of ``kind``.

    Seeds above ``highest`` are refused.
    """

    observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(
        self, kind: str = "good", bad_seeds: Sequence[int] = (), highest: int | None = None
    ):
        self._kind, self._bad_seeds, self._highest = kind, frozenset(bad_seeds), highest
        if kind == "prints":
            _print(())

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode."""
        self._is_bad, self._count = seed in self._bad_seeds, 0
        assert self._highest is None or seed is None or seed <= self._highest, "seed out of range"
        observation = np.zeros(2, np.float32)
        if self._is_bad and self._kind == "raise in reset":
            raise OSError("no such simulator")
        if self._is_bad and self._kind == "os._exit in reset":
            os._exit(3)
        if self._is_bad and self._kind == "reset without info":
            return observation
        return observation, {}

    def step(self, action: Any) -> Any:
        """Count a step."""
        self._count += 1
        step: Any = (np.full(2, self._count, np.float32), 1.0, self._count == STEPS, False, {})
        if self._is_bad and self._count == GOOD_STEPS + 1 and self._kind in IN_STEP:
            return IN_STEP[self._kind](step)
        return UNUSUAL[self._kind](step) if self._kind in UNUSUAL else step


gymnasium.register(
    "Misbehaving-v0", "benchmarks.misbehaving:Misbehaving", max_episode_steps=2 * STEPS
)
