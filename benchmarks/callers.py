"""Callers of a server: how long an answer takes, and how many there are a second."""

import asyncio
import http.client
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dynlearn.protocol.messages import Message

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
    # What is answered in the first tenth does not count.
    began = time.perf_counter()
    counted_from, end = began + 0.1 * seconds, began + 1.1 * seconds
    asking = [keep_asking(url, path, message, end, counted_from) for _ in range(callers)]
    return sum(await asyncio.gather(*asking)) / (time.perf_counter() - counted_from)


async def keep_asking(
    url: str, path: str, message: Message, end: float, counted_from: float = 0.0
) -> int:
    """Ask again and again until a time of `time.perf_counter`; return how often it was answered."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}:{port}"]
    lines += [f"{name}: {value}" for name, value in message.headers.items()]
    lines += [f"Content-Length: {len(message.body)}", "", ""]
    request = "\r\n".join(lines).encode() + message.body
    reader, writer = await asyncio.open_connection(host, int(port))
    answered = 0
    while time.perf_counter() < end:
        writer.write(request)
        head = await reader.readuntil(_HEADERS_END)
        length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        content = await reader.readexactly(int(length))
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"expected an answer from {path}, got {content[:200]!r}")
        answered += time.perf_counter() > counted_from
    writer.close()
    return answered
