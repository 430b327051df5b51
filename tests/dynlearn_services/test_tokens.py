import errno
import json
import os
import pickle
import stat
import subprocess
import sys
import threading

import pytest

from dynlearn.errors import CorruptData, Forbidden, InvalidInput, NotFound, Unauthorized
from dynlearn_services.tokens import Tokens


@pytest.fixture
def tokens(tmp_path):
    return Tokens(tmp_path / "home" / "tokens.json")


def test_a_token_allows_its_role_and_those_below(tokens):
    secrets = {role: tokens.create(f"{role}-one", role) for role in ("read", "write", "admin")}
    for rank, (role, secret) in enumerate(secrets.items()):
        for other, wanted in enumerate(secrets):
            if other <= rank:
                assert tokens.require(f"Bearer {secret}", wanted) == f"{role}-one"
            else:
                with pytest.raises(Forbidden, match=f"role {wanted}, got .* role {role}"):
                    tokens.require(f"Bearer {secret}", wanted)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer dynlearn_wrong", "Basic {}", "{}", "Bearer é{}"]
)
def test_anything_else_is_refused(tokens, header):
    secret = tokens.create("planner", "read")
    with pytest.raises(Unauthorized, match="Bearer and a token"):
        tokens.require(header.format(secret), "read")


def test_the_scheme_is_in_any_case(tokens):
    assert tokens.require(f"bearer {tokens.create('planner', 'read')}", "read") == "planner"


def test_only_a_hash_is_kept_and_only_the_owner_reads_it(tokens):
    secret = tokens.create("planner", "read")
    text = tokens.path.read_text()
    assert secret not in text
    assert set(json.loads(text)["tokens"][0]) == {"name", "role", "sha256"}
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600


def test_a_revoked_token_is_worthless(tokens):
    secret = tokens.create("planner", "read")
    with pytest.raises(InvalidInput, match="revoke it first"):
        tokens.create("planner", "admin")
    tokens.revoke("planner")
    with pytest.raises(Unauthorized):
        tokens.require(f"Bearer {secret}", "read")
    with pytest.raises(NotFound):
        tokens.revoke("planner")


def test_another_process_sees_the_change(tokens, monkeypatch):
    monkeypatch.setattr("dynlearn_services.tokens._LOOK_EVERY", 0.0)
    reader = Tokens(tokens.path)
    assert reader.all() == ()
    secret = tokens.create("planner", "read")
    assert reader.require(f"Bearer {secret}", "read") == "planner"
    tokens.revoke("planner")
    with pytest.raises(Unauthorized):
        reader.require(f"Bearer {secret}", "read")


def test_a_file_of_something_else(tokens):
    tokens.path.parent.mkdir()
    tokens.path.write_text('{"tokens": [{"name": "a", "role": "king", "sha256": ""}]}')
    with pytest.raises(CorruptData, match="role"):
        tokens.all()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_file_that_cannot_be_read_is_told_until_it_can(tokens, make):
    tokens.path.parent.mkdir()
    make(tokens.path)
    for _ in range(2):
        with pytest.raises(InvalidInput, match=r"expected a plain file, got .*tokens\.json, which"):
            tokens.all()
    with pytest.raises(InvalidInput, match="expected a plain file"):
        tokens.create("planner", "read")


CREATE = """
import sys
from pathlib import Path
from dynlearn_services.tokens import Tokens
tokens = Tokens(Path(sys.argv[1]))
for number in range(20):
    tokens.create(f"{sys.argv[2]}-{number}", "read")
    if number:
        tokens.revoke(f"{sys.argv[2]}-{number - 1}")
"""


def test_processes_and_threads_write_one_after_the_other(tokens):
    started = [
        subprocess.Popen([sys.executable, "-c", CREATE, tokens.path, name]) for name in ("a", "b")
    ]
    threads = [
        threading.Thread(target=Tokens(tokens.path).create, args=(f"thread-{number}", "read"))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in started] == [0, 0]
    names = {token.name for token in Tokens(tokens.path).all()}
    assert names == {"a-19", "b-19", *(f"thread-{number}" for number in range(4))}
    # Nothing is left beside it.
    assert [path.name for path in tokens.path.parent.iterdir()] == ["tokens.json"]


def test_once_there_was_a_token_one_is_required(tokens, monkeypatch):
    monkeypatch.setattr("dynlearn_services.tokens._LOOK_EVERY", 0.0)
    reader = Tokens(tokens.path)
    assert not reader.are_required()
    tokens.create("planner", "read")
    assert reader.are_required()
    tokens.revoke("planner")
    assert reader.are_required()
    assert Tokens(tokens.path).are_required()
    tokens.path.unlink()
    assert reader.are_required()
    assert reader.all() == ()
    assert not Tokens(tokens.path).are_required()


def test_they_travel_as_their_place(tokens):
    secret = tokens.create("planner", "read")
    there = pickle.loads(pickle.dumps(Tokens(tokens.path, required=True)))
    assert there.require(f"Bearer {secret}", "read") == "planner"
    assert secret.encode() not in pickle.dumps(tokens)
    tokens.path.unlink()
    assert there.are_required()


def test_revoking_where_nothing_is_leaves_nothing(tokens):
    with pytest.raises(NotFound, match="got 'planner'; there are none yet"):
        tokens.revoke("planner")
    assert not tokens.path.parent.exists()


def test_a_disk_that_is_full(tokens, monkeypatch):
    tokens.create("planner", "read")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dynlearn_services.tokens.write_bytes", fail)
    with pytest.raises(InvalidInput, match="No space left on device"):
        tokens.create("other", "read")
    assert [token.name for token in Tokens(tokens.path).all()] == ["planner"]
