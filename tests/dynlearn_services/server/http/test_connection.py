import asyncio

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from dynlearn.errors import Unavailable
from dynlearn_services.server.http.connection import while_connected


def wait_for(seconds, messages, cancel):
    """Wait so long for an answer, and return how that ends."""

    async def receive():
        if not messages:
            await asyncio.sleep(30)
        return messages.pop(0)

    async def answer():
        await asyncio.sleep(seconds)
        return "answer"

    async def wait():
        request = Request({"type": "http"}, receive)
        task = asyncio.create_task(while_connected(answer(), request))
        await asyncio.sleep(0)
        if cancel:
            task.cancel()
        return await task

    return asyncio.run(wait())


def test_an_answer_comes_to_who_waits():
    assert wait_for(0.1, [], cancel=False) == "answer"


def test_who_hangs_up_gets_none():
    with pytest.raises(HTTPException) as fault:
        wait_for(5, [{"type": "http.disconnect"}], cancel=False)
    assert fault.value.status_code == 499


def test_a_server_that_ends_says_so():
    """It gives up what is under way when its time of grace is over."""
    with pytest.raises(Unavailable, match="the server is ending"):
        wait_for(5, [], cancel=True)
