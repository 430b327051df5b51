"""Requests that are nearly right: bodies, headers and paths changed at random places."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import orjson

from dynlearn.protocol.messages import HEADER_LENGTH, Message

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "G\x00T")
PATHS = (
    "/", "/docs", "/openapi.json", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready",
    "/v2/models/big", "/v2/models/big/ready", "/v2/models/big/versions/1", "/v2/models/big/infer",
    "/v1/models/big/rollout", "/v2/repository/index", "/v2/models/nobody/infer",
)  # fmt: skip
_ODD_PARTS = (
    "..", ".", "", "%2e%2e", "%00", "%0a", "%2f", "%", "%zz", "\x7f", "ü", "a" * 9000, "?x=1",
    "#y", "versions", "1", "-1", "9" * 40, "\\", " ", "*", "big@champion", "infer/",
)  # fmt: skip
_HEADERS = (
    HEADER_LENGTH, "Content-Length", "Transfer-Encoding", "Content-Encoding", "Accept-Encoding",
    "Content-Type", "Authorization", "Host", "Connection", "Upgrade", "Expect", "Origin", "Cookie",
    "Range", "X-Request-Id", "X-Forwarded-For", "Te", "Accept", "If-None-Match", "X" * 300,
)  # fmt: skip
_VALUES = (
    "", "0", "-1", "1", "+5", "9" * 30, "1e3", "gzip", "deflate", "br", "gzip, gzip", "chunked",
    "identity", "close", "keep-alive", "h2c", "100-continue", "*/*", "application/json",
    "text/plain; charset=utf-16", "Bearer ", "Bearer x", "Basic Og==", "localhost", "evil.example",
    "bytes=0-5", "1, 1", "\x00", "\xb2", "a" * 70_000, "\t", "null", "é", "127.0.0.1",
)  # fmt: skip
_WORDS = (
    b"-1", b"1e9", b"1e999", b"9" * 400, b"null", b"true", b"NaN", b"-Infinity", b'"x"', b"[]",
    b"{}", b"[" * 3000, b'{"a":' * 900, b"0.1", b"\xff\xfe", b"\\ud800",
)  # fmt: skip


class Request(NamedTuple):
    """Bytes to send, and what is to be known of them to read the answer.

    Attributes:
        data: the request.
        is_framed: whether its end can be told, so that another may follow.
        has_body: whether an answer to it has a body.
    """

    data: bytes
    is_framed: bool
    has_body: bool


def mutated_requests(
    messages: Sequence[tuple[str, Message]], host: str, token: str, count: int, seed: int
) -> Iterator[Request]:
    """Return requests with something wrong, the same for the same seed.

    Args:
        messages: good ones, with their paths.
        host: of the server.
        token: one that it knows.
        count: how many.
        seed: of all choices.
    """
    rng = random.Random(seed)
    ways = (_with_other_body, _with_other_body, _with_other_headers, _with_other_path)
    for _ in range(count):
        path, message = rng.choice(messages)
        headers = [("Host", host), *message.headers.items()]
        if rng.random() < 0.9:
            headers.append(("Authorization", f"Bearer {token}"))
        yield rng.choice(ways)(rng, path, headers, bytes(message.body))


Headers = list[tuple[str, str]]


def _with_other_body(rng: random.Random, path: str, headers: Headers, body: bytes) -> Request:
    for _ in range(rng.randint(1, 3)):
        body = rng.choice(_CHANGES)(rng, body)
    return _request("POST", path, [*headers, ("Content-Length", str(len(body)))], body, True)


def _with_other_headers(rng: random.Random, path: str, headers: Headers, body: bytes) -> Request:
    headers = [*headers, ("Content-Length", str(len(body)))]
    for _ in range(rng.randint(1, 3)):
        name, value = rng.choice(_HEADERS), rng.choice(_VALUES)
        place = rng.randrange(len(headers) + 1)
        if rng.random() < 0.5 and place < len(headers):
            headers[place] = headers[place][0], value
        else:
            headers.insert(place, (name, value))
    return _request("POST", path, headers, body, False)


def _with_other_path(rng: random.Random, path: str, headers: Headers, body: bytes) -> Request:
    path = rng.choice(PATHS)
    for _ in range(rng.randint(0, 3)):
        parts = path.split("/")
        place = rng.randrange(1, len(parts) + 1)
        parts[place : place + rng.randint(0, 1)] = [rng.choice(_ODD_PARTS)]
        path = "/".join(parts)
    method = rng.choice(METHODS)
    body = body if method == "POST" else b""
    return _request(method, path, [*headers, ("Content-Length", str(len(body)))], body, False)


def _request(method: str, path: str, headers: Headers, body: bytes, is_framed: bool) -> Request:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    head = "\r\n".join([*lines, "", ""]).encode("utf-8")
    return Request(head + body, is_framed, method != "HEAD")


def _cut(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def _insert(rng: random.Random, body: bytes) -> bytes:
    place = rng.randrange(len(body) + 1)
    return body[:place] + rng.randbytes(rng.randint(1, 9)) + body[place:]


def _flip(rng: random.Random, body: bytes) -> bytes:
    place = rng.randrange(len(body) + 1)
    return body[:place] + rng.randbytes(1) + body[place + 1 :]


def _take_out(rng: random.Random, body: bytes) -> bytes:
    place = rng.randrange(len(body) + 1)
    return body[:place] + body[place + rng.randint(1, 99) :]


def _double(rng: random.Random, body: bytes) -> bytes:
    return body * rng.randint(2, 4)


def _other_word(rng: random.Random, body: bytes) -> bytes:
    word = rng.choice((b"28", b"100", b"4", b"1", b"0", b'"FP32"', b'"observation"', b"[", b'"'))
    return body.replace(word, rng.choice(_WORDS), rng.randint(1, 2))


def _other_document(rng: random.Random, body: bytes) -> bytes:
    return orjson.dumps(_anything(rng, 4))


def _anything(rng: random.Random, depth: int) -> object:
    plain: tuple[object, ...] = (
        None, True, -1, 2**63 - 1, 1e308, 0.5, "", "observation", "FP32", "action", "BYTES", [], {},
    )  # fmt: skip
    if not depth or rng.random() < 0.3:
        return rng.choice(plain)
    if rng.random() < 0.4:
        return [_anything(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    names = ("inputs", "outputs", "parameters", "id", "name", "shape", "datatype", "data", "x")
    return {rng.choice(names): _anything(rng, depth - 1) for _ in range(rng.randint(0, 5))}


_CHANGES: Sequence[Callable[[random.Random, bytes], bytes]] = (
    _cut, _insert, _flip, _take_out, _double, _other_word, _other_word, _other_document,
)  # fmt: skip
