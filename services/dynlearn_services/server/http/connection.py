"""The connection of a request: whether anyone still waits for its answer."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from dynlearn.errors import Unavailable

Answer = TypeVar("Answer")

# An answer that takes longer than this is given up when its caller hangs up.
_PATIENCE_SECONDS = 0.05


async def while_connected(answer: Awaitable[Answer], request: Request) -> Answer:
    """Return an answer, or give it up when the caller hangs up.

    Raises:
        HTTPException: the caller has hung up, with a status of 499.
        Unavailable: the server ends, and can wait no longer.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    watching: list[asyncio.Task[None]] = []
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    # Most answers are there before anybody need watch.
    timer = loop.call_later(_PATIENCE_SECONDS, lambda: watching.append(loop.create_task(watch())))
    try:
        return await answer
    except asyncio.CancelledError:
        task.uncancel()
        if not gone:
            raise Unavailable("the server is ending; ask another one") from None
        # Nobody reads it, but the log does.
        raise HTTPException(499, "expected the caller to wait, got a hang-up") from None
    finally:
        timer.cancel()
        for watcher in watching:
            watcher.cancel()
