"""The log of requests: each has an id, which its answer and its line in the log carry."""

import itertools
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request

REQUEST_ID = "X-Request-Id"

_PLAIN_ID = re.compile(r"[!-~]{1,128}")

logger = logging.getLogger("dynlearn.requests")


@dataclass
class Line:
    """What is known of one request.

    Attributes:
        request_id: the caller's own, where it is plain, or one of the server's.
        method: of HTTP.
        path: decoded.
        client: the caller's address.
        began: a time of `time.perf_counter`.
        status: of the answer; 0 until there is one.
        caller: the name of its token.
    """

    request_id: str
    method: str
    path: str
    client: str
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    caller: str = ""


class RequestLog:
    """Where the lines of all requests go."""

    def __init__(self, kind: Literal["errors", "text", "json"]):
        """Choose what is written: of the server's faults alone, or of all, as text or JSON."""
        self._write = _WRITES[kind]
        self._prefix, self._numbers = secrets.token_hex(4), itertools.count(1)

    def begin(self, request: Request) -> Line:
        """Return the line of a request that has come."""
        request_id = request.headers.get(REQUEST_ID, "")
        if not _PLAIN_ID.fullmatch(request_id):
            request_id = f"{self._prefix}-{next(self._numbers)}"
        scope = request.scope
        client = (scope.get("client") or ("",))[0]
        return Line(request_id, scope["method"], scope["path"], client)

    def end(self, line: Line) -> None:
        """Write a line, if it is to be."""
        self._write(
            {
                "request_id": line.request_id,
                "method": line.method,
                "path": line.path,
                "status": line.status,
                "seconds": round(time.perf_counter() - line.began, 6),
                "caller": line.caller,
                "client": line.client,
            }
        )


def _write_errors(line: Mapping[str, Any]) -> None:
    if line["status"] >= 500:
        _write_text(line)


def _write_text(line: Mapping[str, Any]) -> None:
    logger.info("%s", " ".join(f"{name}={_plain(value)}" for name, value in line.items()))


def _plain(value: object) -> str:
    """Return a value as it is, or quoted where it could be taken for more than one, or a line."""
    text = str(value)
    return text if _PLAIN_ID.fullmatch(text) and '"' not in text else json.dumps(text)


def _write_json(line: Mapping[str, Any]) -> None:
    logger.info("%s", json.dumps({"time": time.time(), **line}))


_WRITES: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "errors": _write_errors,
    "text": _write_text,
    "json": _write_json,
}
