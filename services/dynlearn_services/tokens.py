"""Tokens: who may ask the services for what. Only their SHA-256 is kept.

A token is 256 random bits, so that a fast hash without salt gives nothing away. Roles contain one
another: ``admin`` may all that ``write`` may, and ``write`` all that ``read`` may.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dynlearn.errors import DynlearnError, Forbidden, InvalidInput, NotFound, Unauthorized, nearest
from dynlearn.storage.files import check_name, read_json, write_bytes
from dynlearn.storage.locks import one_writer

Role = Literal["read", "write", "admin"]

_RANKS: dict[Role, int] = {"read": 0, "write": 1, "admin": 2}
_PREFIX = "dynlearn_"
_LOOK_EVERY = 0.5
_LOCK_SECONDS = 30.0


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
    """The tokens of one file, read anew when it changes.

    Attributes:
        path: of the file.
        required: whether callers must have one though there is no file.
    """

    def __init__(self, path: Path, required: bool = False):
        self.path = path
        self.required = required
        self._lock = threading.Lock()
        self._looked = -_LOOK_EVERY
        self._stamp: tuple[int, ...] | None = None
        self._tokens: tuple[Token, ...] = ()
        self._fault: DynlearnError | None = None

    def __reduce__(self) -> tuple[type["Tokens"], tuple[Path, bool]]:
        """Travel as the file's place, to be read there."""
        return type(self), (self.path, self.required)

    def all(self) -> tuple[Token, ...]:
        """Return the tokens, as they were at most a second ago.

        Raises:
            InvalidInput: the file cannot be read, or holds something else.
        """
        with self._lock:
            if time.monotonic() - self._looked >= _LOOK_EVERY:
                self._read()
            if self._fault is not None:
                raise self._fault
            return self._tokens

    def are_required(self) -> bool:
        """Whether callers must have one: since there is a file, even one without tokens.

        That it goes opens nothing, for as long as this object lives: whoever loses sight of the
        file, or revokes the last token, does not mean to let everyone in.

        Raises:
            InvalidInput: the file cannot be read, or holds something else.
        """
        self.all()
        return self.required

    def create(self, name: str, role: Role) -> str:
        """Make a token and return it; it cannot be had again.

        Raises:
            InvalidInput: there is one of this name, the name cannot be, or the file cannot be
                written.
            Busy: others have been writing all the while.
        """
        check_name(name, "token")
        secret = _PREFIX + secrets.token_urlsafe(32)
        with self._writing() as tokens:
            if name in (token.name for token in tokens):
                raise InvalidInput(
                    f"expected a new name for a token, got {name!r}; revoke it first"
                )
            tokens.append(Token(name=name, role=role, sha256=_digest(secret)))
        return secret

    def revoke(self, name: str) -> None:
        """Make a token worthless.

        Raises:
            NotFound: there is none of this name.
            InvalidInput: the file cannot be written.
            Busy: others have been writing all the while.
        """
        if not self.path.exists():
            # Nor is a folder to be made for its lock.
            raise _not_found(name, ())
        with self._writing() as tokens:
            known = [token.name for token in tokens]
            if name not in known:
                raise _not_found(name, known)
            del tokens[known.index(name)]

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

    @contextmanager
    def _writing(self) -> Iterator[list[Token]]:
        """Give the tokens as they are now, and write what becomes of them, before anybody else."""
        what = f"the tokens {self.path}"
        lock = self.path.with_name(f".{self.path.name}.lock")
        with self._lock, one_writer(lock, what, _LOCK_SECONDS):
            self._read()
            if self._fault is not None:
                raise self._fault
            tokens = list(self._tokens)
            yield tokens
            document = _Document(tokens=tuple(tokens))
            try:
                write_bytes(self.path, document.model_dump_json(indent=1).encode(), 0o600)
            except OSError as error:
                raise InvalidInput(
                    f"expected a file of tokens that can be written, got {self.path} "
                    f"({error.strerror}); see to its folder"
                ) from error
            self._read()

    def _read(self) -> None:
        self._looked, self._fault = time.monotonic(), None
        try:
            status = self.path.stat()
            self.required = True
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                self._tokens, self._stamp = read_json(self.path, _Document).tokens, stamp
        except (FileNotFoundError, NotFound):
            self._stamp, self._tokens = None, ()
        except DynlearnError as error:
            self._stamp, self._tokens, self._fault = None, (), error
        except OSError as error:
            self._stamp, self._tokens = None, ()
            self._fault = InvalidInput(
                f"expected a file of tokens that can be read, got {self.path} ({error.strerror}); "
                "see to whose it is"
            )


def _not_found(name: str, known: Iterable[str]) -> NotFound:
    return NotFound(f"expected the name of a token, got {name!r}; {nearest(name, known)}")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
