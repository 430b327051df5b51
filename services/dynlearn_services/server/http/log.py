"""The log: each request has an id, which its answer and its line carry."""

import itertools
import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynlearn_services.server.http.limits import send_in_time

REQUEST_ID = "X-Request-Id"
CALLER = "dynlearn.caller"
"""Where in a request's scope it stands who asks, once that is known."""

_PLAIN_ID = re.compile(r"[!-~]{1,128}")

logger = logging.getLogger("dynlearn.requests")


class RequestLog:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: ASGIApp,
        lines: Literal["errors", "text", "json"],
        on_error: Callable[[int], None],
        with_id: bool,
    ):
        """Log what is asked of an application.

        Args:
            app: what answers.
            lines: what to write of each request.
            on_error: called with the status of every answer that is an error.
            with_id: whether answers are to carry the id; a proxy may send its own.
        """
        self._app = app
        self._write = {"errors": _write_errors, "text": _write_text, "json": _write_json}[lines]
        self._on_error = on_error
        self._with_id = with_id
        self._prefix, self._numbers = secrets.token_hex(4), itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, and write down what came of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = (
            given if _PLAIN_ID.fullmatch(given) else f"{self._prefix}-{next(self._numbers)}"
        )
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._with_id:
                    MutableHeaders(raw=message["headers"])[REQUEST_ID] = request_id
            await send_in_time(send, message)

        try:
            await self._app(scope, receive, send_marked)
        finally:
            if status >= 400:
                self._on_error(status)
            self._write(
                {
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(time.perf_counter() - began, 6),
                    "caller": scope.get(CALLER, ""),
                    "client": (scope.get("client") or ("",))[0],
                }
            )


def _write_errors(line: dict[str, Any]) -> None:
    if line["status"] >= 500:
        _write_text(line)


def _write_text(line: dict[str, Any]) -> None:
    logger.info("%s", " ".join(f"{name}={value}" for name, value in line.items()))


def _write_json(line: dict[str, Any]) -> None:
    logger.info("%s", json.dumps({"time": time.time(), **line}))
