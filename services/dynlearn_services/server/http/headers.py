"""Headers of which there can be one."""

from collections.abc import Iterable

from dynlearn.errors import InvalidInput
from dynlearn.protocol.messages import HEADER_LENGTH

# Of two, a proxy before the server may believe the other one.
_SINGLE = frozenset(
    name.lower().encode()
    for name in (
        "Authorization", "Content-Encoding", "Content-Length", "Content-Type", "Host", HEADER_LENGTH
    )
)  # fmt: skip


def require_single(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check that nothing is said twice that can be said once.

    Args:
        headers: of a request, names in lower case.

    Raises:
        InvalidInput: something is.
    """
    seen = set()
    for name, _ in headers:
        if name in _SINGLE:
            if name in seen:
                raise InvalidInput(
                    f"headers: expected {name.decode()} once, got it twice; leave one out"
                )
            seen.add(name)
