"""Ray: the cluster that is there, or one on this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from dynlearn.errors import DynlearnError, Unavailable
from dynlearn_services.ray_folder import ray_folder

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.exceptions import RayActorError

_Handler = Callable[[int, FrameType | None], object] | int | None

_HOST_AND_PORT = re.compile(r"(.+):(\d+)")
_SECONDS_TO_CONNECT = 10.0
_OBJECT_STORE_BYTES = 256 * 2**20

_TOKENS = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # What Ray does for a new local cluster anyway; asked for, it needs no notice on the terminal.
    "RAY_AUTH_MODE": "token",
    # What Ray will do in future; asked for, it needs no notice either.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Else a worker that dies and is started again is reported on standard output.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    # Where one worker's error ends a run, those of the others would follow with their tracebacks.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Workers run in this very Python; uv's hook would look for another.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


@contextmanager
def ray_cluster(cpus: int) -> Iterator[None]:
    """Be connected to Ray while the context lasts.

    If this process is connected already, nothing is done; else the cluster that RAY_ADDRESS names
    is joined; else one is started here, reachable from this machine only, and stopped in the end.
    SIGTERM raises SystemExit meanwhile, unless it has a handler of its own.

    Args:
        cpus: how many workers a cluster started here has room for.

    Raises:
        Unavailable: there is no connection to be had.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("RAY_ADDRESS"):
        # The one switch by which Ray listens on 127.0.0.1 alone, whatever the system.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if not _TOKENS & os.environ.keys():
            # Else Ray writes one into ~/.ray, for everyone to read and every cluster to share.
            # One a process: Ray reads it once.
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    if ray.is_initialized():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    with ExitStack() as open_:
        open_.callback(_handle_sigterm, before)
        folder = None if os.environ.get("RAY_ADDRESS") else open_.enter_context(ray_folder())
        open_.callback(ray.shutdown)
        _connect(cpus, folder)
        # Ray's own handler would print a stack.
        _handle_sigterm(before if callable(before) else _exit)
        try:
            yield
        except ray.exceptions.RayError as error:
            raise Unavailable(
                f"expected a Ray cluster that works, got {type(error).__name__}: "
                f"{_last_line(error)}"
            ) from error


def require_nodes() -> None:
    """Check that work can be done at all; where nobody is left, what is asked for never comes.

    Raises:
        Unavailable: no node of the cluster is alive.
    """
    import ray

    if not any(node["Alive"] for node in ray.nodes()):  # type: ignore[no-untyped-call]
        raise Unavailable(
            "expected a Ray cluster that stays alive, got one without a node; its raylet may have "
            "been killed for want of memory; go on with --resume"
        )


def fetch(reference: ObjectRef[Any]) -> Any:
    """Return what a worker's method gives, or raise the error of this project that it raised.

    Raises:
        RayActorError: the worker's process died.
        RayTaskError: the method raised anything else.
    """
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, DynlearnError):
            raise error.cause from None
        raise


def reason_of_death(error: RayActorError) -> str:
    """Return why a worker's process died, in a line."""
    return _last_line(error)


def _last_line(error: Exception) -> str:
    return str(error).strip().rpartition("\n")[2].strip()


def _connect(cpus: int, folder: Path | None) -> None:
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    try:
        if match := _HOST_AND_PORT.fullmatch(address):
            # Ray itself would try for minutes.
            socket.create_connection((match[1], int(match[2])), _SECONDS_TO_CONNECT).close()
        if folder is None:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                # Inside: Ray opens the folder it is given to everyone.
                _temp_dir=str(folder / "ray"),
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:
        # Of what is killed while it starts, Ray says so by a bare Exception.
        reason = str(error).strip().split("\n", 1)[0]
        raise Unavailable(
            f"expected a Ray cluster {f'at RAY_ADDRESS {address}' if address else 'to start'}, "
            f"got {reason}"
        ) from error


def _handle_sigterm(handler: _Handler) -> None:
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
