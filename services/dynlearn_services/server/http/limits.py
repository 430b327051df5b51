"""Limits of all requests together: the bytes that they hold, and how long an answer may take."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Message, Send

from dynlearn.errors import Unavailable

# A reader that takes longer over one part of an answer is taken to have gone.
_SEND_SECONDS = 30.0
# Below this nothing waits: it goes into the connection's buffer at once.
_LARGE_PART = 32_768


class Budget:
    """How many bytes of bodies may be held at once, of all requests; for one event loop."""

    def __init__(self, limit: int):
        self._limit = limit
        self._held = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Give a function that takes so many bytes, until the context ends.

        It raises `Unavailable` where all requests together would hold too many.
        """
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if self._held + size > self._limit:
                raise Unavailable(
                    f"expected at most {self._limit} bytes of requests at once, got more; "
                    "ask again in a moment"
                )
            held += size
            self._held += size

        try:
            yield take
        finally:
            self._held -= held


async def send_in_time(send: Send, message: Message) -> None:
    """Send a part of an answer, but do not wait for its reader for ever.

    Raises:
        TimeoutError: the reader has not taken it in time.
    """
    if len(message.get("body", b"")) < _LARGE_PART:
        await send(message)
    else:
        async with asyncio.timeout(_SEND_SECONDS):
            await send(message)
