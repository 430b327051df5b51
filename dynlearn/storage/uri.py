"""What of a URI may be written down: where data lie, and nothing that opens the door to them."""

import re

_PLAIN_OPTIONS = {"scheme", "region", "endpoint_override", "project_id", "blob_storage_authority"}
"""Options of a URI that say where something is. Whatever else there is may be a secret."""

# A password may hold slashes, question marks and more, and a mistyped URI only one slash. So all up
# to the last @ goes where a user has a password, even where the path itself has one.
_USER = re.compile(r"(?<=[A-Za-z0-9]:)(/{1,3})(?:[^/\s'\"@:?]*:[^\s'\"]*|[^/\s'\"?]*)@")
_QUERY = re.compile(r"(://[^\s?'\"]*)\?([^\s'\"]*)")


def without_secrets(text: str) -> str:
    """Return a URI, or a text with URIs in it, without their users, passwords and tokens.

    Of the options after a URI's question mark those stay that say where the data are. Every file,
    message and log line that names a place goes through here.
    """
    return _QUERY.sub(_plain_query, _USER.sub(r"\1", text))


def _plain_query(found: re.Match[str]) -> str:
    options = (option for option in found[2].split("&") if "@" not in option)
    plain = [option for option in options if option.partition("=")[0] in _PLAIN_OPTIONS]
    return found[1] + ("?" + "&".join(plain) if plain else "")
