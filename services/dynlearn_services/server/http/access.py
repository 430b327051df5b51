"""Who may ask: the tokens of a server, and the role that a route asks for.

Where no tokens are asked for, everyone on this machine may ask, and no web page of anyone else's
through a browser on it: a name of its own that leads to 127.0.0.1, or a form that it sends there.
"""

import ipaddress
import logging
import re
from collections.abc import Iterable

from starlette.datastructures import Headers

from dynlearn.errors import Forbidden, InvalidInput, Unavailable
from dynlearn_services.tokens import Role, Tokens

logger = logging.getLogger(__name__)

# Of `Host`, and what is left of an `Origin` without its scheme: a name or address, and a port.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/?#@\s]+)(?::\d{1,5})?")


class Access:
    """The door of a server."""

    def __init__(self, tokens: Tokens | None, allowed_hosts: Iterable[str] = ()):
        """Keep what opens it.

        Args:
            tokens: asked for as soon as there are any; never where it is None.
            allowed_hosts: what the server is called beside this machine's own names.
        """
        self._tokens = tokens
        self._allowed = {host.lower().rstrip(".") for host in allowed_hosts}
        self._fault = ""

    def asks_for_tokens(self) -> bool:
        """Whether callers must have a token.

        Raises:
            Unavailable: nobody can say, for the tokens cannot be read.
        """
        try:
            return self._tokens is not None and self._tokens.are_required()
        except InvalidInput as error:
            # Where the tokens are is no business of those who ask.
            if str(error) != self._fault:
                self._fault = str(error)
                logger.error("the tokens cannot be read: %s", error)
            raise Unavailable(
                "expected tokens that the server can read, got none; its log holds the cause"
            ) from error

    def require(self, headers: Headers, role: Role | None) -> str:
        """Return the name of the token that a request shows, or nothing where none is needed.

        Args:
            headers: of the request.
            role: the least that will do; None where everyone may ask.

        Raises:
            Unauthorized: it shows no token that is known.
            Forbidden: the token's role is too low, or another site's page is asking.
            Unavailable: the tokens cannot be read.
        """
        try:
            asks = self.asks_for_tokens()
        except Unavailable:
            if role is not None:
                raise
            return ""
        if not asks:
            self._require_own_page(headers, role)
        elif role is not None:
            assert self._tokens is not None
            return self._tokens.require(headers.get("Authorization", ""), role)
        return ""

    def _require_own_page(self, headers: Headers, role: Role | None) -> None:
        """Check that what asks is a program, or a page of this server.

        Raises:
            Forbidden: it is a page of another site.
            InvalidInput: it could be a form, and would change what is served.
        """
        hosts = headers.getlist("Host")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self._is_own(host):
            raise Forbidden(
                f"Host: expected this machine's loopback, got {host[:80]!r}; name others with "
                "`dynlearn serve --allowed-hosts`"
            )
        for origin in headers.getlist("Origin"):
            scheme, _, asking = origin.lower().partition("://")
            if scheme not in ("http", "https") or not (asking == host or self._is_named(asking)):
                raise Forbidden(
                    f"Origin: expected a page of this server, got one of {origin[:80]!r}; name its "
                    "host with `dynlearn serve --allowed-hosts`"
                )
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        # None is the protocol's own client; a browser would have had to say whose page it shows.
        if role not in (None, "read") and kind not in ("", "application/json"):
            raise InvalidInput(f"Content-Type: expected application/json, got {kind[:80]!r}")

    def _is_own(self, host: str) -> bool:
        name = _name_of(host)
        if name is None:
            return False
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback or name in self._allowed
        except ValueError:
            return name == "localhost" or name in self._allowed

    def _is_named(self, host: str) -> bool:
        return _name_of(host) in self._allowed


def _name_of(host: str) -> str | None:
    """Return a host without its port; None where it is none."""
    match = _HOST.fullmatch(host)
    return match[1].rstrip(".") if match else None
