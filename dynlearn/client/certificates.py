"""Which certificates a client trusts, and what is wrong where it trusts none."""

import os
import ssl
from pathlib import Path

import httpx

from dynlearn.errors import CorruptData, InvalidInput
from dynlearn.storage.files import open_plain

Verify = bool | str | os.PathLike[str] | ssl.SSLContext
"""A file or folder of authorities, a context, True for those usually trusted, False for anyone."""

_FILES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR")
_MAX_BYTES = 2**26
_OTHER_NAMES = (62, 64)
"""OpenSSL's codes of certificates for another host name or address."""


def trusted(verify: Verify) -> ssl.SSLContext:
    """Return a context that trusts what is said, or what the environment's variables name.

    Raises:
        InvalidInput: a file or folder is none of certificates.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    if not isinstance(verify, bool):
        return _authorities("verify", os.fspath(verify))
    if verify:
        for variable in _FILES:
            if path := os.environ.get(variable):
                return _authorities(variable, path)
    return httpx.create_ssl_context(verify=verify, trust_env=False)


def explain_tls(error: BaseException, url: str) -> str | None:
    """Return what is wrong with a server's certificate, or its TLS; None where nothing is."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"expected TLS at {url}, got a fault of it ({cause.reason or cause}); "
            "if the server speaks plain HTTP, ask it at http://"
        )
    advice = (
        "ask for it by a name that is in its certificate"
        if cause.verify_code in _OTHER_NAMES
        else "name the file of its authority with verify=, or with SSL_CERT_FILE"
    )
    return (
        f"expected a certificate that is trusted from {url}, got {cause.verify_message!r}; {advice}"
    )


def _authorities(name: str, path: str) -> ssl.SSLContext:
    is_folder = os.path.isdir(path)
    try:
        if not is_folder:
            # OpenSSL would wait for a pipe, and read a device without end.
            open_plain(Path(path), _MAX_BYTES).close()
        return ssl.create_default_context(
            cafile=None if is_folder else path, capath=path if is_folder else None
        )
    except (OSError, CorruptData) as error:
        reason = error.strerror if isinstance(error, OSError) else "no plain file, or too large"
        raise InvalidInput(
            f"{name}: expected a file of certificates in PEM form, or a folder of them, got {path} "
            f"({reason or error})"
        ) from error
