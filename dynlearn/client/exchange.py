"""A question to a server until its answer: what to send, when to try again, when to give up.

Nothing here touches the network. An exchange is a generator: it yields a request, is sent what came
of it, and returns what it was for. So it is the same whether its requests are waited for in a
thread or on an event loop.
"""

import json
import math
import os
import random
import re
import reprlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import count
from typing import NamedTuple, SupportsFloat, SupportsIndex, TypeVar
from urllib.parse import urlsplit

import httpx

from dynlearn.client.certificates import explain_tls
from dynlearn.errors import (
    DeadlineExceeded,
    DynlearnError,
    Forbidden,
    InvalidInput,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from dynlearn.protocol.messages import Message

TOKEN_VARIABLE = "DYNLEARN_TOKEN"

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LONGEST_RETRY_AFTER = 30.0
_LONGEST_TIMEOUT = 86_400.0

_ERRORS = {
    kind.http_status: kind
    for kind in (
        DynlearnError,
        InvalidInput,
        Unauthorized,
        Forbidden,
        NotFound,
        TooLarge,
        Unavailable,
        DeadlineExceeded,
    )
}
_LOSSES = (httpx.NetworkError, httpx.RemoteProtocolError)


class Deadline(Mapping[str, float]):
    """The end of a call; to httpx the limits of a request's phases, each all that is left."""

    def __init__(self, seconds: float):
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the end, negative after it."""
        return self._end - time.monotonic()

    def __getitem__(self, phase: str) -> float:
        # Asked for when the phase begins. Zero would be no limit but a socket that never waits.
        return max(self.left, 0.001)

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", "write", "read", "pool"))

    def __len__(self) -> int:
        return 4


class Answer(NamedTuple):
    """What a server sent."""

    status: int
    headers: httpx.Headers
    body: bytearray


class Step(NamedTuple):
    """A request to send.

    Attributes:
        pause: seconds to wait before.
        deadline: when to give up.
        fresh: whether to take a new connection; kept ones may be as dead as the last.
    """

    request: httpx.Request
    pause: float
    deadline: Deadline
    fresh: bool


Outcome = Answer | httpx.RequestError | TimeoutError

Result = TypeVar("Result")
Exchange = Generator[Step, Outcome, Result]


class Server:
    """A server's address, and how patiently to ask it."""

    def __init__(self, url: str, timeout: float, retries: int, token: str | None):
        """Check them; see `DynamicsClient` for what they are.

        Raises:
            InvalidInput: one of them cannot be.
        """
        self.url = str(url).rstrip("/")
        self.is_https = _scheme(self.url) == "https"
        if not (isinstance(timeout, SupportsFloat) and 0 < float(timeout) <= _LONGEST_TIMEOUT):
            raise InvalidInput(f"timeout: expected seconds, at most a day, got {timeout!r}")
        if not (isinstance(retries, SupportsIndex) and retries.__index__() >= 0):
            raise InvalidInput(f"retries: expected 0 or more, got {retries!r}")
        self._timeout = timeout
        self._retries = retries
        # Between neighbours compression costs more time than it saves.
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "dynlearn"}
        token = os.environ.get(TOKEN_VARIABLE) if token is None else token
        if token:
            if not re.fullmatch(r"[!-~]+", token):
                raise InvalidInput("token: expected ASCII without spaces, got other characters")
            self._headers["Authorization"] = f"Bearer {token}"

    def deadline(self) -> Deadline:
        """Return the deadline of a call that begins now."""
        return Deadline(self._timeout)

    def ask(
        self,
        url: httpx.URL,
        deadline: Deadline,
        encode: Callable[[float], Message] | None = None,
    ) -> Exchange[Answer]:
        """Ask until there is an answer.

        Lost connections and 503 are tried again, after pauses that double and are cut at random
        (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).

        Args:
            url: what to ask.
            deadline: when to give up.
            encode: given the seconds left, returns what to post; without it the method is GET.

        Raises:
            DynlearnError: what the server refused, or why there is no answer.
        """
        pause, fresh = 0.0, False
        for attempt in count():
            request = self._request(url, deadline, encode, pause)
            outcome = yield Step(request, pause, deadline, fresh)
            if isinstance(outcome, Answer) and outcome.status == httpx.codes.OK:
                return outcome
            pause = _pause(outcome, attempt)
            if attempt == self._retries or pause >= deadline.left:
                break
            fresh = fresh or not isinstance(outcome, Answer)
        if isinstance(outcome, Answer):
            raise _read_error(outcome, url)
        raise self._explain(outcome) from outcome

    def _request(
        self,
        url: httpx.URL,
        deadline: Deadline,
        encode: Callable[[float], Message] | None,
        pause: float,
    ) -> httpx.Request:
        extensions = {"timeout": deadline}
        if encode is None:
            return httpx.Request("GET", url, headers=self._headers, extensions=extensions)
        message = encode(deadline.left - pause)
        headers = self._headers | message.headers
        return httpx.Request(
            "POST", url, headers=headers, content=bytes(message.body), extensions=extensions
        )

    def _explain(self, error: httpx.RequestError | TimeoutError) -> Unavailable:
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return DeadlineExceeded(
                f"expected an answer from {self.url} within {self._timeout} s, got none; "
                "ask for fewer rows, or with a longer timeout"
            )
        tls = explain_tls(error, self.url)
        if tls is not None:
            return Unavailable(tls)
        if isinstance(error, httpx.ConnectError):
            return Unavailable(
                f"expected a server at {self.url}, got none ({error}); start one with "
                "`dynlearn serve`"
            )
        return Unavailable(
            f"expected an answer from {self.url}, got none ({error or type(error).__name__}); "
            "see whether a server of dynlearn is there, and what its log says"
        )


def _scheme(url: str) -> str:
    try:
        urlsplit(url)
        address = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        address = httpx.URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise InvalidInput(f"expected an address like http://127.0.0.1:8000, got {url!r}")
    return address.scheme


def _pause(outcome: Outcome, attempt: int) -> float:
    """Return the seconds until the next attempt; infinity where there must be none."""
    backoff = random.uniform(0, min(_FIRST_PAUSE * 2 ** min(attempt, 10), _LONGEST_PAUSE))
    if isinstance(outcome, _LOSSES) and explain_tls(outcome, "") is None:
        return backoff
    if isinstance(outcome, Answer) and outcome.status == httpx.codes.SERVICE_UNAVAILABLE:
        asked = outcome.headers.get("Retry-After", "")
        seconds = int(asked) if re.fullmatch("[0-9]{1,9}", asked) else 0
        return min(seconds, _LONGEST_RETRY_AFTER) + backoff
    return math.inf


def _read_error(answer: Answer, url: httpx.URL) -> DynlearnError:
    status = answer.status
    kind = _ERRORS.get(status, InvalidInput if status < 500 else Unavailable)
    try:
        return kind(json.loads(answer.body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return kind(
            f"expected an answer from {url}, got status {status}: "
            f"{reprlib.repr(answer.body.decode(errors='replace'))}"
        )
