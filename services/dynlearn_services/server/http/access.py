"""Who may ask: the tokens of a server, and the role that a route asks for."""

from starlette.datastructures import Headers

from dynlearn_services.tokens import Role, Tokens


class Access:
    """The door of a server; open to everyone where there are no tokens."""

    def __init__(self, tokens: Tokens | None):
        self._tokens = tokens

    def require(self, headers: Headers, role: Role | None) -> str:
        """Return the name of the token that a request shows, or nothing where none is needed.

        Args:
            headers: of the request.
            role: the least that will do; None where everyone may ask.

        Raises:
            Unauthorized: it shows no token that is known.
            Forbidden: the token's role is too low.
        """
        if self._tokens is None or role is None:
            return ""
        return self._tokens.require(headers.get("Authorization", ""), role)
