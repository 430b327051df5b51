import asyncio
import gzip
import zlib

import pytest
from starlette.requests import Request

from dynlearn.errors import InvalidInput, TooLarge, Unavailable
from dynlearn_services.server.http.bodies import compress, read_body, wanted_coding
from dynlearn_services.server.http.limits import Budget

BODY = bytes(range(256)) * 20
LIMIT = len(BODY)


def read(body, coding=None, limit=LIMIT, chunk=1000, take=lambda size: None):
    chunks = [body[start : start + chunk] for start in range(0, len(body), chunk)] or [b""]

    async def receive():
        part = chunks.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(chunks)}

    headers = [(b"content-encoding", coding.encode())] if coding else []
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    return asyncio.run(read_body(request, limit, take))


def test_plain_and_packed_bodies():
    assert read(BODY) == read(BODY, "identity") == BODY
    assert read(gzip.compress(BODY, mtime=0), "gzip") == BODY
    assert read(zlib.compress(BODY), "deflate") == BODY
    assert read(b"") == b""


def test_what_unpacks_to_more_than_the_limit():
    bomb = zlib.compress(bytes(10**9))
    assert len(bomb) < 10**6
    with pytest.raises(TooLarge, match="when unpacked"):
        read(bomb, "deflate", limit=10**6)
    with pytest.raises(TooLarge, match=f"at most {LIMIT} bytes"):
        read(BODY + b"x")


def test_all_bodies_together_have_a_limit():
    budget = Budget(LIMIT + 1500)
    with budget.share() as first:
        assert read(BODY, take=first) == BODY
        with (
            pytest.raises(Unavailable, match="bytes of requests and answers at once"),
            budget.share() as take,
        ):
            read(BODY, take=take)
        # What the second had taken is free again.
        with budget.share() as third:
            assert read(BODY[:1500], take=third) == BODY[:1500]
    with budget.share() as last:
        packed = gzip.compress(BODY, mtime=0)
        assert read(packed, "gzip", take=last) == BODY
        with pytest.raises(Unavailable):
            last(1501 - len(packed))


@pytest.mark.parametrize(
    ("body", "coding", "message"),
    [
        (BODY, "gzip", "expected gzip"),
        (gzip.compress(BODY, mtime=0), "deflate", "expected deflate"),
        (gzip.compress(BODY, mtime=0)[:-1], "gzip", "one whole gzip stream"),
        (gzip.compress(BODY, mtime=0) + b"x", "gzip", "one whole gzip stream"),
        (gzip.compress(BODY[:10], mtime=0) * 2, "gzip", "one whole gzip stream"),
        (b"", "gzip", "one whole gzip stream"),
        (BODY, "br", "Content-Encoding: expected gzip, deflate or identity, got 'br'"),
    ],
)
def test_what_is_not_packed_as_it_says(body, coding, message):
    with pytest.raises(InvalidInput, match=message):
        read(body, coding)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("gzip", "gzip"),
        (" Deflate;q=1", "deflate"),
        ("gzip, deflate", None),
        ("gzip;q=0.5", "gzip"),
        ("gzip;q=1, deflate;q=0.5", None),
        ("gzip; q=0", None),
        ("gzip;q=0.00", None),
        ("br", None),
        ("*", None),
        ("", None),
    ],
)
def test_only_a_coding_named_alone_is_wanted(header, coding):
    assert wanted_coding(header) == coding


def test_packed_answers():
    packed, headers = asyncio.run(compress(BODY, "gzip"))
    assert headers == {"Content-Encoding": "gzip"}
    assert gzip.decompress(packed) == BODY
    assert zlib.decompress(asyncio.run(compress(BODY, "deflate"))[0]) == BODY
    assert asyncio.run(compress(b"small", "gzip")) == (b"small", {})
