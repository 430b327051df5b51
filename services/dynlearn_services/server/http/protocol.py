"""The protocol of a connection: uvicorn's, with bounds on what a caller may make it hold, and when.

- The head of a request has a size and a time; nothing of it is parsed before it is whole.
- One request at a time: what a caller sends ahead waits unparsed, and beyond a little is not read.
- An offer to upgrade, which every client of Java makes, is taken for what it is and left out; the
  parser would take the body that follows for the other protocol.
- So many connections: then those without a request make room, and else the new one is sent away.
- A caller that does not read its answer is not waited for.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

ABORT = "dynlearn.abort"
"""The extension of the scope that ends the connection without waiting for its reader."""

_MOST_HEAD_BYTES = 64 * 1024
_HEAD_SECONDS = 10.0
# Read ahead of an answer, for a hang-up to be seen.
_MOST_BYTES_AHEAD = 64 * 1024
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_NO_LINGER = struct.pack("ii", 1, 0)
_FIRST_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n"
_OFFER = re.compile(rb"(?im)^(upgrade|http2-settings)[ \t]*:[^\n]*\n")
_WORDS = re.compile(rb"(?im)^(connection[ \t]*:)([^\r\n]*)")


class _Flow(FlowControl):
    """Reading that is not resumed while too much waits."""

    def __init__(self, transport: asyncio.Transport, ahead: bytearray):
        super().__init__(transport)
        self._ahead = ahead

    def resume_reading(self) -> None:
        if len(self._ahead) <= _MOST_BYTES_AHEAD:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """A connection to the server.

    Attributes:
        most_connections: of the server at once; set on a subclass.
    """

    most_connections = 1000

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._ahead = bytearray()
        self._body_left = 0
        self._in_chunks = False
        self._has_too_much = False
        self._late: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, if there is room for it."""
        if len(self.connections) >= self.most_connections and not self._make_room():
            transport.write(_plain_answer(503, "too many connections; ask again in a moment"))
            transport.close()
            self.transport = transport
            self.parser = None  # type: ignore[assignment]
            return
        super().connection_made(transport)
        self.flow = _Flow(transport, self._ahead)
        self._idle_since = self.loop.time()
        # Clients may connect long before they ask.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._stop_waiting_for_head()
        self._ahead.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came, as far as it is its turn."""
        if self.parser is None:
            return
        self._unset_keepalive_if_required()
        self._ahead += data
        self._go_on()

    def on_message_begin(self) -> None:
        """Begin a request, with a way to end its connection."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"call": self._reset}}

    def on_headers_complete(self) -> None:
        """Begin to answer, and see how its body will come."""
        self._stop_waiting_for_head()
        headers = dict(self.headers)
        self._in_chunks = b"transfer-encoding" in headers
        self._body_left = 0 if self._in_chunks else int(headers.get(b"content-length") or 0)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Let the next request begin."""
        self._in_chunks = False
        if self.is_idle:
            self._stop_waiting_for_head()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on to the next request, or wait for it."""
        if self.cycle.more_body and self._late is None:
            # What still comes of the body is for nobody, and may not come for ever. The connection
            # stays, for a caller who is still sending would lose the answer with it.
            self._late = self.loop.call_later(_HEAD_SECONDS, self._reset)
        self._idle_since = self.loop.time()
        super().on_response_complete()
        if self._ahead:
            self.loop.call_soon(self._go_on)

    def timeout_keep_alive_handler(self) -> None:
        """End a connection without requests, and one whose reader has gone."""
        if self.transport.get_write_buffer_size():
            self._reset()
        else:
            super().timeout_keep_alive_handler()

    def _reset(self) -> None:
        """End the connection, and have the system forget what it still keeps for the reader."""
        own = self.transport.get_extra_info("socket")
        if own is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _go_on(self) -> None:
        while self._ahead and self.parser is not None and not self.transport.is_closing():
            if self._body_left:
                part = bytes(self._ahead[: self._body_left])
                self._body_left -= len(part)
                self._feed(part)
            elif self._in_chunks:
                self._feed(bytes(self._ahead))
            elif not self.is_idle:
                # After the answer before it.
                if len(self._ahead) > _MOST_BYTES_AHEAD:
                    self._has_too_much = True
                    self.flow.pause_reading()
                return
            elif not self._feed_head():
                return
        if self.parser is None or self.transport.is_closing():
            return
        if self._has_too_much:
            self._has_too_much = False
            self.flow.resume_reading()
        if self.is_idle and self.timeout_keep_alive_task is None:
            # Something came, such as the rest of a body, and no request.
            self._wait_for_head()

    def _feed_head(self) -> bool:
        """Parse the next head if it is whole; return whether it is."""
        self._unset_keepalive_if_required()
        if self._ahead[0] not in _FIRST_BYTES:
            self._refuse(400, "expected an HTTP request, got something else")
            return False
        end = _END_OF_HEAD.search(self._ahead, 0, _MOST_HEAD_BYTES)
        if end is None:
            if len(self._ahead) >= _MOST_HEAD_BYTES:
                self._refuse(431, f"expected headers of at most {_MOST_HEAD_BYTES} bytes, got more")
            self._wait_for_head()
            return False
        head = bytes(self._ahead[: end.end()])
        self._feed(_without_offer(head), len(head))
        return True

    def _feed(self, data: bytes, length: int | None = None) -> None:
        """Parse some bytes that stand for the next so many that have come."""
        del self._ahead[: len(data) if length is None else length]
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, ValueError):
            self._refuse(400, "expected an HTTP request, got one that cannot be read")

    def _refuse(self, status: int, reason: str) -> None:
        self._stop_waiting_for_head()
        self._ahead.clear()
        if not self.transport.is_closing():
            self.transport.write(_plain_answer(status, reason))
            self.transport.close()

    def _wait_for_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def _stop_waiting_for_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._refuse(408, f"expected the headers of a request within {_HEAD_SECONDS:g} s")

    def _make_room(self) -> bool:
        """End the connection without a request for longest; return whether there is one."""
        idle = [other for other in self.connections if getattr(other, "is_idle", False)]
        if not idle:
            return False
        oldest = min(idle, key=lambda other: other._idle_since)  # type: ignore[union-attr]
        oldest.transport.abort()
        self.connections.discard(oldest)
        return True


def _without_offer(head: bytes) -> bytes:
    """Return a request's head without the offer to go on in another protocol."""
    if b"upgrade" not in head.lower():
        return head
    kept = _OFFER.sub(b"", head)
    offered = (b"upgrade", b"http2-settings")

    def without(found: re.Match[bytes]) -> bytes:
        words = (word.strip() for word in found[2].split(b","))
        left = [word for word in words if word.lower() not in offered]
        return found[1] + b" " + (b", ".join(left) or b"keep-alive")

    return _WORDS.sub(without, kept)


def _plain_answer(status: int, reason: str) -> bytes:
    """Return a whole answer in the protocol's form, after which the connection ends."""
    body = b'{"error":"%s"}' % reason.encode()
    return b"".join(
        [
            STATUS_LINE[status],
            b"content-type: application/json\r\nconnection: close\r\n",
            b"retry-after: 1\r\n" if status == 503 else b"",
            b"content-length: %d\r\n\r\n" % len(body),
            body,
        ]
    )
