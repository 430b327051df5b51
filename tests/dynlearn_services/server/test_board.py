from prometheus_client import CollectorRegistry, Counter, Gauge

from dynlearn_services.server.board import Board, Order
from dynlearn_services.server.figures import read_figures


def figures(count):
    registry = CollectorRegistry()
    Counter("requests", "Answers", registry=registry).inc(count)
    Gauge("waiting", "Requests that wait", registry=registry).set(1)
    return read_figures(registry)


def test_the_latest_order_of_a_model_counts():
    board = Board()
    first = board.order("arm", False)
    assert board.exchange("a", [], {}) == {"arm": first}
    last = board.order("arm", True)
    assert board.exchange("b", [], {"arm": first}) == {"arm": last}
    other = board.order("leg", False)
    assert board.exchange("a", [], {}) == {"arm": last, "leg": other}


def test_a_board_that_was_started_anew_is_told_what_it_knew():
    order = Board().order("arm", False)
    anew = Board()
    assert anew.exchange("a", [], {"arm": order}) == {"arm": order}
    assert anew.exchange("b", [], {"arm": Order(order.given - 1, True)}) == {"arm": order}


def counted(board, name, count):
    found = {family.name: family.samples for family in board.figures(name, figures(count))}
    return found["requests"]["requests_total", ()], sorted(found["waiting"])


def test_figures_of_all(monkeypatch):
    board = Board()
    board.exchange("b", figures(4), {})
    waiting = [("waiting", (("replica", name),)) for name in "ab"]
    assert counted(board, "a", 3) == (7, waiting)
    board.exchange("b", figures(5), {})
    assert counted(board, "a", 3) == (8, waiting)
    # Gone: it has nothing waiting any more, and what it has counted stays.
    monkeypatch.setattr("dynlearn_services.server.board._SILENCE_SECONDS", 0.0)
    assert counted(board, "c", 1) == (1 + 3 + 5, [("waiting", (("replica", "c"),))])
