"""How long a server takes to say that it lives, asked all the while by a process of its own."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

_REQUEST = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
_PAUSE = 0.005
_PATIENCE = 10.0
_PROBE = "from benchmarks.liveness import probe; probe()"


@contextmanager
def probing(host: str, port: int) -> Iterator[list[NDArray[np.float64]]]:
    """Ask all the while, and give the milliseconds of each answer when the context has ended."""
    command = [sys.executable, "-c", _PROBE, host, str(port)]
    found: list[NDArray[np.float64]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield found
        finally:
            written, _ = process.communicate(b"", 2 * _PATIENCE)
            found.append(np.array(written.split(), np.float64))


def probe() -> None:
    """Ask until the standard input ends, and write every answer's milliseconds, a line each.

    What never came within the patience counts as that long.
    """
    host, port = sys.argv[1:]
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    connection = None
    while not over.is_set():
        began = time.perf_counter()
        try:
            if connection is None:
                connection = socket.create_connection((host, int(port)), _PATIENCE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(_REQUEST)
            answer = b""
            while not answer.endswith(b"}"):
                part = connection.recv(65_536)
                if not part:
                    raise ConnectionResetError
                answer += part
            print(1e3 * (time.perf_counter() - began))
        except OSError:
            connection = None
            if not over.is_set():
                print(1e3 * _PATIENCE)
                time.sleep(0.1)
        time.sleep(_PAUSE)
