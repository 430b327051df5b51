import asyncio

import pytest

from benchmarks.attack import GRACE, endure, mutate
from benchmarks.bad_callers import send_slowly
from benchmarks.mutations import mutated_requests
from benchmarks.rollout import make_model
from benchmarks.soak import messages
from dynlearn.registry import Registry
from dynlearn_services.home import Home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    Registry(home.models).publish("big", make_model(28).save)
    return home


def test_mutations_are_the_same_for_the_same_seed_and_mostly_wrong() -> None:
    def some(seed: int) -> list[bytes]:
        requests = mutated_requests(messages()[:1], "localhost", "t", 100, seed)
        return [request.data for request in requests]

    assert some(0) == some(0) != some(1)
    assert len(set(some(0))) > 95


def test_mutated_requests_are_refused_or_answered(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    # It raises at any 5xx, and at a traceback in the log.
    figures = mutate(home, 1000, seed=0)
    assert figures["answered"] > 990
    assert figures["mutated_growth_mib"] < 16
    printed = capsys.readouterr().out
    assert all(f"{status}: " in printed for status in (200, 400, 401, 403, 405))


def test_a_server_ends_without_a_word_in_the_midst_of_slow_senders(home: Home) -> None:
    # It raises at a traceback in the log. How fast it ends is the benchmark's to say.
    figures = asyncio.run(endure(home, send_slowly, 2))
    assert GRACE / 2 < figures["seconds_to_end"] < 3 * GRACE
