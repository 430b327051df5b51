"""Callers of a server: how long an answer takes, and how many there are a second."""

import asyncio
import http.client
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dynlearn.wire import Message

_HEADERS_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Latency:
    """Of many calls, one after another, in milliseconds."""

    p50: float
    p99: float


def time_calls(call: Callable[[], object], seconds: float) -> Latency:
    """Call again and again for so long, after some calls that do not count."""
    for _ in range(5):
        call()
    taken = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - began))
    p50, p99 = np.percentile(taken, [50, 99])
    return Latency(float(p50), float(p99))


def poster(url: str, path: str, message: Message) -> Callable[[], bytes]:
    """Return a call that posts a message over a connection of its own, and reads the answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post() -> bytes:
        connection.request("POST", path, message.body, message.headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"expected an answer from {path}, got {content[:200]!r}")
        return content

    return post


def requests_per_second(
    url: str, path: str, message: Message, callers: int, seconds: float
) -> float:
    """Return how many answers so many callers get a second, each asking again when answered."""
    return asyncio.run(_ask(url, path, message, callers, seconds))


async def _ask(url: str, path: str, message: Message, callers: int, seconds: float) -> float:
    host, _, port = url.removeprefix("http://").rpartition(":")
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}:{port}"]
    lines += [f"{name}: {value}" for name, value in message.headers.items()]
    lines += [f"Content-Length: {len(message.body)}", "", ""]
    request = "\r\n".join(lines).encode() + message.body
    counts = [0] * callers
    counted_from, end = time.perf_counter() + 0.2 * seconds, time.perf_counter() + 1.2 * seconds

    async def caller(index: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < end:
            writer.write(request)
            head = await reader.readuntil(_HEADERS_END)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"expected an answer from {path}, got {head[:200]!r}")
            length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            if time.perf_counter() > counted_from:
                counts[index] += 1
        writer.close()

    await asyncio.gather(*(caller(index) for index in range(callers)))
    return sum(counts) / (time.perf_counter() - counted_from)
