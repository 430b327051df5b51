"""Callers that mean ill: bombs, slow senders, readers that never read, work without end."""

import asyncio
import gzip
import itertools
import subprocess
from collections.abc import Callable, Coroutine
from contextlib import closing, suppress
from dataclasses import dataclass

import numpy as np

from benchmarks.serving import INFER, make_rows
from dynlearn.protocol.messages import encode_request

CALLERS = 8
PATIENCE = 30.0
"""For an answer to come, or a connection to be closed, in seconds."""
_ROLLOUT = "/v1/models/big/rollout"


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        process: its own.
        address: host and port.
        token: one that it knows.
    """

    process: subprocess.Popen[str]
    address: tuple[str, int]
    token: str

    @property
    def host(self) -> str:
        """The address as callers write it."""
        return ":".join(map(str, self.address))

    def head(self, path: str, *lines: str) -> bytes:
        """Return the head of a request, up to its length."""
        own = f"Host: {self.host}", f"Authorization: Bearer {self.token}"
        return "\r\n".join([f"POST {path} HTTP/1.1", *own, *lines, "", ""]).encode()


async def send_bombs(server: Server) -> None:
    """Send bodies that are small only as long as they are packed."""
    bomb = gzip.compress(bytes(256 * 2**20), 9)
    await keep_sending(server, [server.head(INFER, "Content-Encoding: gzip", length(bomb)) + bomb])


async def send_json(server: Server) -> None:
    """Send JSON that takes long to read, of the largest size that is allowed."""
    size = 4 * 2**20 - 2**10
    bodies = [b'{"inputs":[%s]}' % (b"[0]," * (size // 4))[:-1], b"[" * size, b'"' + b"a" * size]
    await keep_sending(server, [server.head(INFER, length(body)) + body for body in bodies])


async def send_slowly(server: Server) -> None:
    """Begin requests, in the head or in the body, and go on by a byte a second."""

    async def dribble(index: int) -> None:
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(*server.address)
                with closing(writer):
                    whole = server.head(INFER, "Content-Length: 1000")
                    writer.write(whole if index % 2 else whole[:-20])
                    while not writer.is_closing():
                        await asyncio.sleep(1)
                        writer.write(b"a")
                        await writer.drain()
            await asyncio.sleep(0.5)

    await asyncio.gather(*map(dribble, range(200)))


async def never_read(server: Server) -> None:
    """Ask for long answers and leave them where they are."""
    message = encode_request(make_rows(5000), ["member_scale_trils"])
    lines = [f"{name}: {value}" for name, value in message.headers.items()]
    request = server.head(INFER, *lines, length(message.body)) + bytes(message.body)
    readers = [await asyncio.open_connection(*server.address, limit=1) for _ in range(50)]
    for _, writer in readers:
        writer.write(request)
    try:
        await asyncio.Event().wait()
    finally:
        for _, writer in readers:
            writer.close()


async def ask_without_end(server: Server) -> None:
    """Send request after request without reading an answer."""
    request = f"GET /v2/health/live HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode() * 1000

    async def ask() -> None:
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(*server.address, limit=1)
                with closing(writer):
                    while not writer.is_closing():
                        writer.write(request)
                        await writer.drain()
            await asyncio.sleep(0.1)

    await asyncio.gather(*(ask() for _ in range(8)))


async def imagine_most(server: Server) -> None:
    """Ask for as long a rollout as is allowed without a reward, twice at a time."""
    # What they imagine has nearly as many bytes as an answer may.
    rows = make_rows(47)
    plans = np.tile(rows["action"].reshape(47, 1, 4), (1, 1000, 1))[None]
    inputs = {"observations": rows["observation"][:1], "actions": plans.astype(np.float32)}
    message = encode_request(inputs, ["trajectory_mean"], {"particles": 100})
    lines = [f"{name}: {value}" for name, value in message.headers.items()]
    request = server.head(_ROLLOUT, *lines, length(message.body)) + bytes(message.body)
    await keep_sending(server, [request], callers=2, patience=1e9)


async def keep_sending(
    server: Server, requests: list[bytes], callers: int = CALLERS, patience: float = PATIENCE
) -> None:
    """Send the same requests over and over, each on a connection of its own."""

    async def call() -> None:
        for data in itertools.cycle(requests):
            try:
                async with asyncio.timeout(patience):
                    reader, writer = await asyncio.open_connection(*server.address)
                    with closing(writer):
                        writer.write(data)
                        await read_answer(reader, True)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)

    await asyncio.gather(*(call() for _ in range(callers)))


Attack = Callable[[Server], Coroutine[None, None, None]]

ATTACKS: dict[str, Attack] = {
    "gzip bombs": send_bombs,
    "heavy JSON": send_json,
    "slow senders": send_slowly,
    "never reading": never_read,
    "pipelining": ask_without_end,
    "largest rollout": imagine_most,
}


def length(body: bytes | memoryview) -> str:
    """Return the header that says how long a body is."""
    return f"Content-Length: {len(body)}"


async def read_answer(reader: asyncio.StreamReader, has_body: bool) -> tuple[int, bool]:
    """Return an answer's status, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    if status == 100:
        return await read_answer(reader, has_body)
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if has_body:
        await reader.readexactly(int(headers.get("content-length", 0)))
    return status, headers.get("connection") != "close"
