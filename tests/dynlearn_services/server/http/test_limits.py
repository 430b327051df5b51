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
        with pytest.raises(Unavailable, match="at most 10 bytes of requests at once"):
            first(1)
    with budget.share() as third:
        third(10)


def test_a_reader_of_a_large_part_is_not_waited_on_for_ever(monkeypatch):
    monkeypatch.setattr(limits, "_SEND_SECONDS", 0.01)
    sent = []

    async def send(message):
        sent.append(len(message["body"]))
        await asyncio.sleep(0.05)

    def part(size):
        return send_in_time(send, {"type": "http.response.body", "body": bytes(size)})

    asyncio.run(part(100))
    with pytest.raises(TimeoutError):
        asyncio.run(part(100_000))
    assert sent == [100, 100_000]
