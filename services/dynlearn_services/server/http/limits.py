"""Limits of all requests together: the bytes that they hold, and how long an answer may take."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Message, Send

from dynlearn.errors import Unavailable

# A reader that takes longer over one piece of an answer is taken to have gone.
_SEND_SECONDS = 30.0
_PIECE = 256 * 1024


class Budget:
    """How many bytes of bodies may be held at once, of all requests; for one event loop."""

    def __init__(self, limit: int):
        self._limit = limit
        self._held = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Give a function that takes so many bytes, until the context ends; or gives some back.

        It raises `Unavailable` where all requests together would hold too many.
        """
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if size > 0 and self._held + size > self._limit:
                raise Unavailable(
                    f"expected at most {self._limit} bytes of requests and answers at once, got "
                    "more; ask again in a moment"
                )
            held += size
            self._held += size

        try:
            yield take
        finally:
            self._held -= held


async def send_in_time(send: Send, message: Message) -> None:
    """Send a part of an answer, but do not wait for its reader for ever.

    A large one goes piece by piece, each when the one before has left, and returns when nearly all
    has: so that it is not held twice, and whoever counts its bytes does so for as long as they are
    there.

    Raises:
        TimeoutError: the reader has not taken a piece in time.
    """
    body = message.get("body", b"")
    if len(body) <= _PIECE:
        async with asyncio.timeout(_SEND_SECONDS):
            await send(message)
        return
    view = memoryview(body)
    for first in range(0, len(view), _PIECE):
        async with asyncio.timeout(_SEND_SECONDS):
            await send({**message, "body": view[first : first + _PIECE], "more_body": True})
    async with asyncio.timeout(_SEND_SECONDS):
        await send({**message, "body": b""})
