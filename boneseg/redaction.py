"""Passwords out of everything that is shown: messages, tracebacks, log records."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
SECRET_NAMES = re.compile(
    r"^(?!PWD$)(?:.*[_.])?(SECRET|PASSWORD|PASSWD|PWD|TOKEN|CREDENTIALS?|(API|ACCESS|PRIVATE|PATIENT|SECRET)_?KEY)([_.]|$)"
    r"(?!.*(ID|FILE|PATH|URI|URL|DIR)$)",
    re.IGNORECASE,
)
"""Names of settings and environment variables whose values are never shown."""
SHORTEST = 4
"""Shorter values are not hidden wherever they stand: they would make holes in ordinary words."""

# The password may hold any mark but white space, also "@" and "/": the last "@" before a host counts. Keys of a bucket
# may hold "@" too.
_USER = re.compile(
    r"(?P<scheme>(?<![A-Za-z0-9+.-])(?!s3:|file:)[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s<>]*)@(?=[^\s<>@])"
)
_S3_USER = re.compile(r"s3://[^\s/@:]*:[^\s/@]*@")
_QUERY = re.compile(
    r"(?P<name>[?&;][^=&;#\s]*(?:token|password|passwd|pwd|secret|key|signature|credential|auth)[^=&;#\s]*=)"
    r"[^&;#\s'\"<>]+",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"(?P<name>authorization['\"]?\s*[:=]\s*['\"]?(?:basic|bearer|token)?\s*)[^\s'\",}]+", re.IGNORECASE
)


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text without what nobody but its owner may see.

    Hidden are user and password of a URL, values of its query that are named like a secret, authorisation headers, and
    values of environment variables that are named like a secret, also percent-encoded.
    """
    for secret in _secrets(os.environ if environment is None else environment):
        text = text.replace(secret, HIDDEN)
    text = _USER.sub(rf"\g<scheme>{HIDDEN}@", _S3_USER.sub(f"s3://{HIDDEN}@", text))
    text = _QUERY.sub(rf"\g<name>{HIDDEN}", text)
    return _HEADER.sub(rf"\g<name>{HIDDEN}", text)


def holds_password(uri: str) -> bool:
    """Say whether a URI holds a password, a user of a web address (a token, often), or a query value named like one."""
    user = _user(uri)
    return ":" in user or (bool(user) and uri.lower().startswith("http")) or _QUERY.search(uri) is not None


def split_user(uri: str) -> tuple[str, str, str]:
    """Return a web address without its user and password, the user, and the password, both decoded."""
    user = _user(uri)
    name, _, password = user.partition(":")
    return uri.replace(f"{user}@", "", 1) if user else uri, unquote(name), unquote(password)


def _user(uri: str) -> str:
    """Return what stands between the scheme and the last "@" before the path."""
    scheme, mark, rest = uri.partition("://")
    found = _USER.search(uri)
    if found is not None:
        return found["user"]
    return rest.rpartition("@")[0] if mark and scheme not in ("s3", "file") else ""


class RedactingFormatter(logging.Formatter):
    """A formatter whose lines and tracebacks hold no password."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return redacted(super().format(record))


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """Return the values to hide in every form in which they turn up, the longest first."""
    found: set[str] = set()
    for name, value in environment.items():
        if SECRET_NAMES.search(name):
            found.add(value)
        password = _user(value).partition(":")[2]
        if password:
            found |= {password, unquote(password)}
    forms = {form for value in found for form in (value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1])}
    return sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)
