"""URLs whose text shows no secrets, and text that secrets of URLs are cut out of.

A secret of a URL is its user with the password, and its query, where passwords, tokens and signatures are.
Any text may be redacted: what holds no URL stays as it is. Knows neither files nor networks.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Self
from urllib.parse import quote, quote_plus, unquote, unquote_plus

__all__ = ["RedactingFormatter", "Url", "redact_text", "redact_url", "redact_values"]

HIDDEN = "***"
_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,40}://"
_START = re.compile(rf"(?={_SCHEME})")
# In prose a URL ends at a space or a quote, but for a password that holds one.
_URL_IN_TEXT = re.compile(rf"{_SCHEME}(?:\S*@)?[^\s\"'<>`]*")
# Secrets that stand in text by their names, such as in the connection string of a database or of Azure.
_NAMED = re.compile(
    r"(?i)\b((?:password|passwd|pwd|account_?key|shared_?access_?(?:key|signature)|secret_?access_?key"
    r"|x-amz-(?:signature|credential|security-token))\s?=\s?)([^\s&;,'\"]+)"
)
# A sentence goes on after the query.
_QUERY = re.compile(r"\?.*?(?=[:;,.)\]}]*$)|#[^#]*=.*?(?=[:;,.)\]}]*$)", re.DOTALL)
# `container@account` is a place, and no user.
_CONTAINER_SCHEMES = {"abfs", "abfss", "wasb", "wasbs"}
# SQLAlchemy reads a password up to the @, whatever is in it.
_DATABASE_SCHEMES = {"postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle"}
_SECRET_NAME = re.compile(r"(?i)pass|pwd|token|sig|key|secret|cred|auth")
# Shorter ones would cut words out of a message that have nothing to do with them.
_MIN_SECRET_CHARS = 3


class Url(str):
    """A URL, chain of URLs or path, whose text (``str``, ``repr``, formatting) is redacted.

    Code that takes it apart as a ``str`` (slices, ``split``, ``urlsplit``) sees all of it, and so does
    ``json``; see ``redact_values``.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """A URL of that text; one that is a ``Url`` already keeps its secrets."""
        return super().__new__(cls, str.__str__(value))

    def __str__(self) -> str:
        return redact_url(self.reveal())

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, format_spec: str) -> str:
        return format(str(self), format_spec)

    def reveal(self) -> str:
        """The plain text with its secrets, for the library that connects."""
        return str.__str__(self)

    def redact(self, text: str) -> str:
        """``text``, such as the message of a library, without this URL's secrets, in whatever form."""
        for secret in sorted(_secrets(self.reveal()), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return redact_text(text)


class RedactingFormatter(logging.Formatter):
    """Formatter of log lines, tracebacks included, that redacts the URLs in them."""

    def format(self, record: logging.LogRecord) -> str:
        """The redacted line."""
        return redact_text(super().format(record))


def redact_url(url: str) -> str:
    """``url``, each of a chain, without user, password and query. A path stays as it is."""
    url = str.__str__(url)
    if "://" not in url:
        return url
    return "".join(_redact_link(link) for link in _START.split(url))


def redact_text(text: str) -> str:
    """``text`` with each URL in it redacted, and each secret that stands by its name."""
    if "://" in text:
        text = _URL_IN_TEXT.sub(lambda found: redact_url(found[0]), text)
    return _NAMED.sub(rf"\g<1>{HIDDEN}", text)


def redact_values(value: object) -> object:
    """A JSON value with each ``Url`` in it as its text, which ``json`` alone would write with its secrets."""
    if isinstance(value, Url):
        return str(value)
    if isinstance(value, Mapping):
        return {key: redact_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redact_values(entry) for entry in value]
    return value


def _redact_link(link: str) -> str:
    scheme, user, rest = _take_apart(link)
    if scheme is None:
        return link
    if user and scheme.lower() in _CONTAINER_SCHEMES and ":" not in user:
        rest = f"{user}@{rest}"
    body = rest.removesuffix("::")
    return f"{scheme}://{_QUERY.sub('', body, count=1)}{rest[len(body) :]}"


def _take_apart(link: str) -> tuple[str | None, str, str]:
    """Scheme, user with password, and all that follows of a link of a chain; no scheme if it is no URL."""
    if not _START.match(link):
        return None, "", link
    scheme, _, rest = link.partition("://")
    authority = re.split(r"[/?#]", rest.removesuffix("::"), maxsplit=1)[0]
    port = authority.rpartition(":")[2]
    # A password with a slash is no valid one, but is there all the same.
    is_torn = "@" not in authority and not (port.isdecimal() or port.endswith("]"))
    is_database = scheme.lower().partition("+")[0] in _DATABASE_SCHEMES
    within = rest if ":" in authority and (is_torn or is_database) else authority
    user, _, _ = within.rpartition("@")
    return scheme, user, rest[len(user) :].removeprefix("@")


def _secrets(url: str) -> set[str]:
    """Strings by which a message may repeat the secrets of a URL."""
    found: set[str] = set()
    for link in _START.split(url):
        scheme, user, rest = _take_apart(link)
        if scheme is None:
            continue
        found.update(_secrets_of_user(scheme, user), _secrets_of_query(rest))
    found |= {spell(secret) for secret in found for spell in (unquote, unquote_plus)}
    found |= {spell(secret) for secret in found for spell in (_quote_all, quote_plus)}
    return {secret for secret in found if len(secret) >= _MIN_SECRET_CHARS}


def _secrets_of_user(scheme: str, user: str) -> Iterator[str]:
    name, separator, password = user.partition(":")
    if not separator:
        if scheme.lower() not in _CONTAINER_SCHEMES:
            yield name
        return
    yield password
    # A library that ends the password at its first @ takes the rest for part of the host.
    for place, char in enumerate(password):
        if char == "@":
            yield f"{password[place + 1 :]}@"


def _secrets_of_query(rest: str) -> Iterator[str]:
    for pair in re.split(r"[?&#]", rest)[1:]:
        name, _, value = pair.partition("=")
        if value and _SECRET_NAME.search(name):
            yield value.removesuffix("::")


def _quote_all(text: str) -> str:
    return quote(text, safe="")
