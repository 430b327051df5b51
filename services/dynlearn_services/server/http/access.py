"""Access: who may ask for what."""

from dynlearn_services.tokens import Role, Tokens


def require_role(tokens: Tokens | None, role: Role | None, authorization: str) -> str:
    """Return who asks, if they may.

    Args:
        tokens: of those who may ask; everyone may where it is None.
        role: the least that is needed; everyone may where it is None.
        authorization: the value of the HTTP header of that name.

    Raises:
        Unauthorized: there is no token that is known.
        Forbidden: the token's role is too low.
    """
    if tokens is None or role is None:
        return ""
    return tokens.require(authorization, role)
