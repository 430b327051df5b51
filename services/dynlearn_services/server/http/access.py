"""Guard: what happens to every request, whatever it asks for.

It gets an id, which its answer and its line in the log carry; it shows a token where tokens are
required; and its answer is not waited on for ever.
"""

import asyncio
import itertools
import json
import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dynlearn.errors import DynlearnError
from dynlearn_services.server.http.errors import answer_error
from dynlearn_services.server.service import Service
from dynlearn_services.tokens import Role

REQUEST_ID = "X-Request-Id"

_PLAIN_ID = re.compile(r"[!-~]{1,128}")
_OPEN_PATHS = ("/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json")
# What the page under /docs consists of.
PAGE_FILES = "/docs-files"
_ADMIN_PATHS = re.compile(r"/v2/repository/models/[^/]*/(load|unload)")
# A reader that takes longer over one part of an answer is taken to have gone.
_SEND_SECONDS = 30.0
# Below this nothing waits: it goes into the connection's buffer at once.
_LARGE_PART = 32_768

logger = logging.getLogger("dynlearn.requests")


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app = app
        self._service = service
        self._prefix, self._numbers = secrets.token_hex(4), itertools.count(1)
        self._writes = {"errors": _write_errors, "text": _write_text, "json": _write_json}[
            service.config.log
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get(REQUEST_ID, "")
        request_id = (
            given if _PLAIN_ID.fullmatch(given) else f"{self._prefix}-{next(self._numbers)}"
        )
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Ray Serve's proxy gives every request an id, and sends it back, by itself.
                if self._service.config.replicas is None:
                    MutableHeaders(raw=message["headers"])[REQUEST_ID] = request_id
            if len(message.get("body", b"")) < _LARGE_PART:
                await send(message)
            else:
                async with asyncio.timeout(_SEND_SECONDS):
                    await send(message)

        caller = ""
        try:
            caller = self._require_role(scope, headers)
            await self._app(scope, receive, send_marked)
        except DynlearnError as error:
            answer = answer_error(scope["method"], scope["path"], error)
            await answer(scope, receive, send_marked)
        finally:
            if status >= 400:
                self._service.metrics.observe_error(status)
            self._writes(
                {
                    "request_id": request_id,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "seconds": round(time.perf_counter() - began, 6),
                    "caller": caller,
                    "client": (scope.get("client") or ("",))[0],
                }
            )

    def _require_role(self, scope: Scope, headers: Headers) -> str:
        tokens, path = self._service.tokens, scope["path"]
        if tokens is None or path in _OPEN_PATHS or path.startswith(f"{PAGE_FILES}/"):
            return ""
        role: Role = "admin" if _ADMIN_PATHS.fullmatch(path) else "read"
        return tokens.require(headers.get("Authorization", ""), role)


def _write_errors(line: dict[str, Any]) -> None:
    if line["status"] >= 500:
        _write_text(line)


def _write_text(line: dict[str, Any]) -> None:
    logger.info("%s", " ".join(f"{name}={value}" for name, value in line.items()))


def _write_json(line: dict[str, Any]) -> None:
    logger.info("%s", json.dumps({"time": time.time(), **line}))
