import pytest

from dynlearn.errors import InvalidInput
from dynlearn_services.server.http.headers import require_single


def test_what_can_be_said_once_is_not_said_twice() -> None:
    once = [(b"host", b"a"), (b"authorization", b"b"), (b"accept", b"c"), (b"accept", b"d")]
    require_single(once)
    for name in (b"host", b"authorization", b"inference-header-content-length", b"content-type"):
        with pytest.raises(InvalidInput, match=f"headers: expected {name.decode()} once, got it"):
            require_single([*once, (name, b"1"), (name, b"1")])
