"""The connections of a client: kept between calls, and opened where they are used.

They travel to another process as what they lead to, and are opened anew there.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import closing
from typing import Any, NamedTuple

import httpx

from dynlearn.client.certificates import Verify, trusted
from dynlearn.client.exchange import Answer, Outcome, Step

_KEPT = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=30)
_FRESH = httpx.Limits(max_connections=100, max_keepalive_connections=0)
"""The connections of requests, and those of requests whose first connection was lost."""


class Connections:
    """Connections that block, and that threads may share."""

    def __init__(self, is_https: bool, verify: Verify):
        """Prepare them; nothing is sent yet.

        Raises:
            InvalidInput: the certificates to trust cannot be read.
        """
        self._made_of = is_https, verify
        self._trusted = trusted(verify) if is_https else False
        self._inherited: list[httpx.Client] = []
        self._open()

    def __reduce__(self) -> tuple[type["Connections"], tuple[bool, Verify]]:
        return type(self), self._made_of

    def send(self, step: Step) -> Outcome:
        """Send a request, and return what came of it."""
        if self._process != os.getpid():
            # A copy of the process that opened them, which goes on to use them itself.
            self._inherited += self._kept, self._fresh
            self._open()
        if self._kept.is_closed:
            self._open()
        http = self._fresh if step.fresh else self._kept
        chunks = []
        try:
            with closing(http.send(step.request, stream=True)) as answer:
                for chunk in answer.iter_bytes():
                    chunks.append(chunk)
                    # httpx limits the wait for each chunk alone.
                    if step.deadline.left < 0:
                        raise TimeoutError
        except (httpx.RequestError, TimeoutError) as error:
            return error
        return Answer(answer.status_code, answer.headers, bytearray().join(chunks))

    def close(self) -> None:
        """Close them; a later call opens others."""
        self._kept.close()
        self._fresh.close()

    def _open(self) -> None:
        self._process = os.getpid()
        self._kept = httpx.Client(**_options(_KEPT, self._trusted))
        self._fresh = httpx.Client(**_options(_FRESH, self._trusted))


class _Pair(NamedTuple):
    kept: httpx.AsyncClient
    fresh: httpx.AsyncClient


class AsyncConnections:
    """Connections of event loops, each with its own."""

    def __init__(self, is_https: bool, verify: Verify):
        """Prepare them; nothing is sent yet.

        Raises:
            InvalidInput: the certificates to trust cannot be read.
        """
        self._made_of = is_https, verify
        self._trusted = trusted(verify) if is_https else False
        self._opened: dict[
            asyncio.AbstractEventLoop, tuple[_Pair, AsyncGenerator[_Pair, None]]
        ] = {}

    def __reduce__(self) -> tuple[type["AsyncConnections"], tuple[bool, Verify]]:
        return type(self), self._made_of

    async def send(self, step: Step) -> Outcome:
        """Send a request, and return what came of it."""
        pair = await self._of_this_loop()
        http = pair.fresh if step.fresh else pair.kept
        try:
            async with asyncio.timeout(step.deadline.left):
                answer = await http.send(step.request, stream=True)
                try:
                    body = bytearray().join([chunk async for chunk in answer.aiter_bytes()])
                finally:
                    await answer.aclose()
        except (httpx.RequestError, TimeoutError) as error:
            return error
        return Answer(answer.status_code, answer.headers, body)

    async def close(self) -> None:
        """Close those of this event loop; a later call opens others."""
        _, life = self._opened.pop(asyncio.get_running_loop(), (None, None))
        if life is not None:
            await life.aclose()

    async def _of_this_loop(self) -> _Pair:
        loop = asyncio.get_running_loop()
        opened = self._opened.get(loop)
        if opened is None:
            for other in [other for other in self._opened if other.is_closed()]:
                del self._opened[other]
            life = self._live()
            # It does not wait, so that no other call can come between.
            opened = self._opened[loop] = await anext(life), life
        return opened[0]

    async def _live(self) -> AsyncGenerator[_Pair, None]:
        """Give connections; `asyncio.run` ends all generators, so that they are closed in time."""
        kept = httpx.AsyncClient(**_options(_KEPT, self._trusted))
        fresh = httpx.AsyncClient(**_options(_FRESH, self._trusted))
        try:
            yield _Pair(kept, fresh)
        finally:
            await kept.aclose()
            await fresh.aclose()


def _options(limits: httpx.Limits, verify: Any) -> dict[str, Any]:
    # A planner talks to its server directly, whatever proxy the environment names.
    return {"limits": limits, "trust_env": False, "verify": verify}
