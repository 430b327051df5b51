import json
import stat

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
