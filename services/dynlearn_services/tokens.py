"""Tokens: who may ask the services for what. Only their SHA-256 is kept.

A token is 256 random bits, so that a fast hash without salt gives nothing away. Roles contain one
another: ``admin`` may all that ``write`` may, and ``write`` all that ``read`` may.
"""

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dynlearn.errors import Forbidden, InvalidInput, NotFound, Unauthorized, nearest
from dynlearn.storage.files import check_name, read_json, write_bytes

Role = Literal["read", "write", "admin"]

_RANKS: dict[Role, int] = {"read": 0, "write": 1, "admin": 2}
_PREFIX = "dynlearn_"
_LOOK_EVERY = 1.0


def least_role(roles: Iterable[Role | None]) -> Role | None:
    """Return the one of some roles that allows least; None, that everyone has, before all."""
    known = list(roles)
    if None in known:
        return None
    return min((role for role in known if role is not None), key=_RANKS.__getitem__)


class Token(BaseModel):
    """One token, as it is kept.

    Attributes:
        name: whose it is.
        role: what it allows.
        sha256: of the token itself, in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[Token, ...] = Field((), max_length=10_000)


class Tokens:
    """The tokens of one file, read anew when it changes."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._looked = -_LOOK_EVERY
        self._stamp: tuple[int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def all(self) -> tuple[Token, ...]:
        """Return the tokens, as they were at most a second ago.

        Raises:
            CorruptData: the file holds something else.
        """
        with self._lock:
            if time.monotonic() - self._looked >= _LOOK_EVERY:
                self._read()
            return self._tokens

    def create(self, name: str, role: Role) -> str:
        """Make a token and return it; it cannot be had again.

        Raises:
            InvalidInput: there is one of this name, or the name cannot be.
        """
        check_name(name, "token")
        with self._lock:
            self._read()
            if name in (token.name for token in self._tokens):
                raise InvalidInput(
                    f"expected a new name for a token, got {name!r}; revoke it first"
                )
            secret = _PREFIX + secrets.token_urlsafe(32)
            self._write((*self._tokens, Token(name=name, role=role, sha256=_digest(secret))))
        return secret

    def revoke(self, name: str) -> None:
        """Make a token worthless.

        Raises:
            NotFound: there is none of this name.
        """
        with self._lock:
            self._read()
            left = tuple(token for token in self._tokens if token.name != name)
            if len(left) == len(self._tokens):
                known = [token.name for token in left]
                raise NotFound(
                    f"expected the name of a token, got {name!r}; {nearest(name, known)}"
                )
            self._write(left)

    def require(self, authorization: str, role: Role) -> str:
        """Return the name of a token that allows a role.

        Args:
            authorization: the value of the HTTP header of that name.
            role: what is to be allowed.

        Raises:
            Unauthorized: it holds no token that is known.
            Forbidden: the token's role is too low.
        """
        scheme, _, secret = authorization.partition(" ")
        digest = _digest(secret.strip()) if scheme.lower() == "bearer" else ""
        found = None
        # Every one is compared, so that the time taken does not tell which.
        for token in self.all():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        if found is None:
            raise Unauthorized(
                "Authorization: expected Bearer and a token of this server; "
                "make one with `dynlearn tokens create`"
            )
        if _RANKS[found.role] < _RANKS[role]:
            raise Forbidden(f"expected a token with role {role}, got one with role {found.role}")
        return found.name

    def _read(self) -> None:
        self._looked = time.monotonic()
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._tokens = None, ()
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._tokens = read_json(self.path, _Document).tokens
            self._stamp = stamp

    def _write(self, tokens: tuple[Token, ...]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self.path, _Document(tokens=tokens).model_dump_json(indent=1).encode())
        os.chmod(self.path, 0o600)
        self._stamp, self._tokens = None, tokens


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
