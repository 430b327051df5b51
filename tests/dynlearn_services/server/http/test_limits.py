import asyncio

import pytest

from dynlearn.errors import Unavailable
from dynlearn_services.server.http import limits
from dynlearn_services.server.http.limits import Budget, send_in_time


def test_a_budget_is_shared_and_given_back():
    budget = Budget(10)
    with budget.share() as first, budget.share() as second:
        first(6)
        second(4)
        with pytest.raises(Unavailable, match="at most 10 bytes of requests and answers at once"):
            first(1)
    with budget.share() as third:
        third(10)
        # A body makes room for its answer.
        third(-4)
        third(4)


@pytest.mark.parametrize("size", [0, 100, 262_144, 262_145, 1_000_000])
def test_a_large_part_goes_piece_by_piece(size):
    sent = []

    async def send(message):
        sent.append(message)

    body = bytes(range(256)) * 4000
    for more in (False, True):
        sent.clear()
        message = {"type": "http.response.body", "body": body[:size], "more_body": more}
        asyncio.run(send_in_time(send, message))
        assert b"".join(one["body"] for one in sent) == body[:size]
        assert max(len(one["body"]) for one in sent) <= 262_144
        assert [one["more_body"] for one in sent] == [True] * (len(sent) - 1) + [more]


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_a_reader_is_not_waited_on_for_ever(monkeypatch, size):
    monkeypatch.setattr(limits, "_SEND_SECONDS", 0.01)
    sent = []

    async def send(message):
        if sent:
            await asyncio.sleep(5)
        sent.append(len(message["body"]))

    async def both():
        for part in (b"first", bytes(size)):
            await send_in_time(send, {"type": "http.response.body", "body": part})

    with pytest.raises(TimeoutError):
        asyncio.run(both())
    assert sent == [5]
