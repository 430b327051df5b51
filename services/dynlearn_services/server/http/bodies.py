"""Bodies as they travel: read within a limit, and compressed with gzip or deflate."""

import asyncio
import re
import zlib
from collections.abc import Callable, Iterator

from starlette.requests import ClientDisconnect, Request

from dynlearn.errors import InvalidInput, TooLarge

# A sender that is slower than this for a whole body is taken to have gone.
_READ_SECONDS = 60.0
_SMALLEST_COMPRESSED = 1024
# In zlib's terms: the header of gzip or of zlib (which HTTP calls deflate), or whichever comes.
_WINDOWS = {"gzip": 31, "deflate": 15}
_LEVEL = 1
_AT_ONCE = 2**18
_NOT_ACCEPTED = re.compile(r"q=0(\.0*)?")


async def read_body(request: Request, limit: int, take: Callable[[int], None]) -> bytes:
    """Return a request's body, decompressed; neither it nor what it unpacks to exceeds the limit.

    Args:
        request: whose body is still to be read.
        limit: of this one.
        take: of `Budget.share`.

    Raises:
        TooLarge: the body or what it unpacks to is larger.
        InvalidInput: it breaks off, is not compressed as it says, or takes too long.
        Unavailable: all requests together hold too much.
    """
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", *_WINDOWS):
        raise InvalidInput(
            f"Content-Encoding: expected gzip, deflate or identity, got {coding[:40]!r}"
        )
    body = await _read(request, limit, take)
    if coding != "identity":
        body = await asyncio.to_thread(_decompress, body, coding, limit)
        take(len(body))
    return body


def wanted_coding(accept_encoding: str) -> str | None:
    """Return the coding that an answer is to have: one that the caller names, alone.

    What libraries accept by default, several codings, is no wish: packing numbers takes longer
    than sending them.
    """
    coding, _, weight = accept_encoding.lower().replace(" ", "").partition(";")
    is_wanted = "," not in weight and not _NOT_ACCEPTED.fullmatch(weight)
    return coding if coding in _WINDOWS and is_wanted else None


async def compress(
    body: bytes | memoryview, coding: str
) -> tuple[bytes | memoryview, dict[str, str]]:
    """Return a body packed, with the header that says so; a small one as it is."""
    if len(body) < _SMALLEST_COMPRESSED:
        return body, {}
    return await asyncio.to_thread(_compress, body, coding), {"Content-Encoding": coding}


async def _read(request: Request, limit: int, take: Callable[[int], None]) -> bytes:
    claimed = request.headers.get("Content-Length", "")
    if claimed.isdecimal() and int(claimed) > limit:
        raise TooLarge(f"body: expected at most {limit} bytes, got {claimed}")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(_READ_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"body: expected at most {limit} bytes, got more")
                take(len(chunk))
                chunks.append(chunk)
    except ClientDisconnect as error:
        raise InvalidInput(f"body: expected all of it, got {size} bytes and a hang-up") from error
    except TimeoutError as error:
        raise InvalidInput(
            f"body: expected all of it within {_READ_SECONDS:g} s, got {size} bytes"
        ) from error
    return b"".join(chunks)


def _decompress(body: bytes, coding: str, limit: int) -> bytes:
    unpacking = zlib.decompressobj(_WINDOWS[coding])
    pieces, room, packed = [], limit, b""
    try:
        for packed in _pieces(body):
            while packed and not unpacking.eof:
                # By few at a time: what is unpacked in one is copied in one, with Python's lock.
                piece = unpacking.decompress(packed, _AT_ONCE)
                packed, room = unpacking.unconsumed_tail, room - len(piece)
                if room < 0:
                    raise TooLarge(f"body: expected at most {limit} bytes when unpacked, got more")
                pieces.append(piece)
            if packed or unpacking.unused_data:
                break
    except zlib.error as error:
        raise InvalidInput(
            f"body: expected {coding}, as Content-Encoding says ({error})"
        ) from error
    if not unpacking.eof or packed or unpacking.unused_data:
        raise InvalidInput(f"body: expected one whole {coding} stream, got part of one or more")
    return b"".join(pieces)


def _pieces(body: bytes) -> Iterator[bytes]:
    view = memoryview(body)
    return (bytes(view[first : first + _AT_ONCE]) for first in range(0, len(view), _AT_ONCE))


def _compress(body: bytes | memoryview, coding: str) -> bytes:
    packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOWS[coding])
    return packing.compress(body) + packing.flush()
