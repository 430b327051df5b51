"""Where a server listens, and whether its callers need tokens there."""

import ipaddress
import socket

from dynlearn.errors import InvalidInput
from dynlearn_services.tokens import Tokens


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        InvalidInput: the port is in use, or the host is none to listen on.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(
            f"host: expected an address to listen on, got {host!r} ({error}); use 127.0.0.1"
        ) from error
    family, _, _, _, address = found[0]
    try:
        listener = socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise InvalidInput(
            f"expected a free port to listen on, got {host}:{port} ({error}); choose another "
            "--port, or 0 for any"
        ) from error
    # Connections inherit it; without it each small answer waits 40 ms for the client's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address to ask."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def required_tokens(tokens: Tokens | None, listener: socket.socket) -> Tokens | None:
    """Return the tokens of those who may ask; on any but loopback they are required for good.

    Raises:
        InvalidInput: they are, and there is none; or their file cannot be read.
    """
    host = listener.getsockname()[0]
    known = tokens.all() if tokens is not None else ()
    if ipaddress.ip_address(host).is_loopback:
        return tokens
    if tokens is None or not known:
        raise InvalidInput(
            f"host: expected an address of this machine's loopback, got {host!r}, and no tokens, "
            "without which no other machine is answered; make one with `dynlearn tokens create`"
        )
    return Tokens(tokens.path, required=True)
