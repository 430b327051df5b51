import time
from types import SimpleNamespace

import pytest
import torch

from dynlearn.errors import NotFound, Unavailable
from dynlearn_services.server import peers
from dynlearn_services.server.board import Board
from dynlearn_services.server.models.loaded_model import LoadedModel
from dynlearn_services.server.models.served_models import ServedModels
from dynlearn_services.server.peers import Peers


def handle(board):
    """The board as an actor's handle shows it, called at once."""
    names = ("order", "exchange", "figures")
    remotes = {name: SimpleNamespace(remote=getattr(board, name)) for name in names}
    return SimpleNamespace(**remotes)


@pytest.fixture
def replica(arm, metrics, monkeypatch):
    monkeypatch.setattr(Peers, "_ask", lambda self, answer: answer)
    monkeypatch.setattr(peers, "_LOOK_EVERY", 0.01)
    opened = []

    def start(board):
        models = ServedModels(arm, [], torch.device("cpu"), "float32", 1.0, metrics)
        models.open(LoadedModel.warm_up)
        joined = Peers(handle(board), models, metrics)
        opened.append((joined, models))
        return joined, models

    yield start
    for joined, models in opened:
        joined.close()
        models.close()


def within(seconds, holds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return False


def test_orders_reach_the_others_and_those_who_come_later(arm, make_model, replica):
    arm.publish("leg", make_model().save)
    board = Board()
    (one, first), (_, second) = replica(board), replica(board)
    first.unload("arm")
    one.order("arm", served=False)
    assert within(2, lambda: second.names == ["leg"])
    _, late = replica(board)
    assert late.names == ["leg"]
    first.load("arm")
    one.order("arm", served=True)
    assert within(2, lambda: second.names == late.names == ["arm", "leg"])
    # Done once: who is served anew meanwhile is left alone.
    assert first.names == ["arm", "leg"]


def test_a_model_unloaded_before_another_has_seen_it(arm, make_model, replica):
    board = Board()
    (one, first), (_, second) = replica(board), replica(board)
    one.order("leg", served=False)
    time.sleep(0.1)
    arm.publish("leg", make_model().save)
    assert within(2, lambda: first.names == ["arm", "leg"])
    time.sleep(0.6)
    with pytest.raises(NotFound):
        second.find("leg")


def test_a_board_that_does_not_answer(monkeypatch, replica, caplog):
    joined, models = replica(Board())

    def fail(self, answer):
        raise Unavailable("expected the other replicas to answer")

    monkeypatch.setattr(Peers, "_ask", fail)
    for ask in (joined.page, lambda: joined.order("arm", served=False)):
        with pytest.raises(Unavailable):
            ask()
    time.sleep(0.1)
    assert len([line for line in caplog.messages if "other replicas" in line]) == 1
    assert models.find("arm").version == "2"
