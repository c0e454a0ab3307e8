"""What a conninfo says: the grammar of connection strings, as libpq has it.

Law: for every text, what libpq's PQconninfoParse understands is understood alike, and what it
refuses is refused. The exceptions are told in `parse`.

A conninfo may hold a password, so no error repeats any part of it but the names of keywords, and a
word that looks like one where no password can reach: a mistake is told by its place.

Source: PostgreSQL documentation, "Connection Strings" (libpq).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn, Self
from urllib.parse import unquote_to_bytes

from ..errors import UsageError
from .keywords import KEYWORDS, unknown_keyword

__all__ = ["parse", "read"]

_URI: Final = re.compile(r"postgres(?:ql)?://")
_USERINFO: Final = re.compile(r"(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@")
_HOST: Final = re.compile(r"[^:/?,]*")
_PORT: Final = re.compile(r"[^/?,]*")
_PORTS: Final = re.compile(r"[0-9,]*")
_DBNAME: Final = re.compile(r"[^?]*")
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
# How Python tells bytes that are not UTF-8.
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
# libpq's idea of white space. Python's takes in more, and a password may hold any of that.
_SPACE: Final = " \t\n\r\f\v"
_KEYWORD: Final = re.compile(rf"([^{_SPACE}=]+)[{_SPACE}]*=[{_SPACE}]*")
# mysql://, jdbc:postgresql://, postgresql:/h
_OTHER_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9.+:-]*:/")
# What stands between the password of a URI and its parameters.
_PLACE: Final = ("host", "port", "dbname")


class _Parsed(dict[str, str]):
    """A dict that does not show what is, or may be, a password."""

    def __repr__(self) -> str:
        # Where an '@' stands, a password was perhaps not percent-encoded, and what is read as the
        # place is the rest of it.
        hidden = _PLACE if any("@" in self.get(name, "") for name in _PLACE) else ()
        shown = (
            f"{name!r}: {'***' if name in hidden else _shown(name, value)}"
            for name, value in self.items()
        )
        return f"{{{', '.join(shown)}}}"

    def copy(self) -> Self:
        """Return another one that does not show it either."""
        return type(self)(self)

    def __or__(self, other: Any) -> Any:
        return type(self)(dict(self) | other)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a parsed conninfo cannot be pickled, since it may hold a password; take a dict of it"
        )


def _shown(name: str, value: str) -> str:
    # What was put in beside keywords is nobody's to judge.
    is_known = name in KEYWORDS and not KEYWORDS[name].is_secret
    return repr(value) if is_known and "@" not in value else "***"


def parse(conninfo: str) -> dict[str, str]:
    """Return what a conninfo says, by keyword: that, and nothing of defaults or the environment.

    Both forms are taken, a URI and ``keyword=value`` pairs; keywords are libpq's, of PostgreSQL 18
    and 19, and pgrepl's own. Several hosts and ports stand comma-separated, as in libpq. Values are
    not checked. The result equals a plain dict; its repr masks passwords, and it cannot be pickled
    or deep-copied. `dict()` makes an ordinary one, which hides nothing.

    Raises `UsageError` for what libpq refuses, and for percent escapes that are not UTF-8 and zero
    bytes, neither of which a `str` of libpq's could hold. The error tells the place, and repeats
    nothing but keywords and what looks like one.
    """
    try:
        return _Parsed(read(conninfo))
    except UsageError as error:
        refused = UsageError(*error.args)
    # A traceback that shows locals would print it.
    del conninfo
    raise refused


def read(conninfo: str, *, is_strict: bool = False) -> dict[str, str]:
    """Return what `parse` does, as a plain dict.

    Strictly: a URI with an '@' that separates nothing is refused. libpq takes what is around it for
    the name of a host or a database, and it would be shown as such; most likely it is the rest of a
    password that was not percent-encoded.
    """
    if not isinstance(conninfo, str):
        raise UsageError(f"expected the conninfo as a str, got {type(conninfo).__name__}")
    if "\0" in conninfo:
        raise UsageError(
            "expected a conninfo without zero bytes, got one at character "
            f"{conninfo.index(chr(0)) + 1}"
        )
    values: dict[str, str] = {}
    if match := _URI.match(conninfo):
        _read_uri(values, conninfo, match.end(), is_strict)
    else:
        _read_keywords(values, conninfo)
    return values


def _store(values: dict[str, str], name: str, value: str, where: str, may_hint: bool) -> None:
    if name == "requiressl":
        name, value = "sslmode", "require" if value.startswith("1") else "prefer"
    if name not in KEYWORDS:
        # Behind a password, the word may belong to it.
        may_hint = may_hint and not any(KEYWORDS[each].is_secret for each in values)
        raise unknown_keyword(name if may_hint else None, where)
    values[name] = value


# keyword=value


def _read_keywords(values: dict[str, str], text: str) -> None:
    at = 0
    while (start := _skip_space(text, at)) < len(text):
        match = _KEYWORD.match(text, start)
        if match is None:
            raise _no_pair(text, start)
        value, at = _value(text, match.end())
        _store(values, match[1], value, f"at character {start + 1} of the conninfo", True)


def _no_pair(text: str, start: int) -> UsageError:
    if not text[:start].strip(_SPACE) and _OTHER_URI.match(text, start):
        return UsageError(
            "expected a URI that begins with postgresql:// or postgres://, in small letters and "
            "without spaces before, or keyword=value pairs, got a URI of another kind"
        )
    got = "no keyword" if text[start] == "=" else "a word without '='"
    return UsageError(
        f"expected keyword=value at character {start + 1} of the conninfo, got {got}; put a value "
        "with spaces in single quotes"
    )


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _value(text: str, at: int) -> tuple[str, int]:
    """Return a value and the position behind it; a backslash takes the next character as it is."""
    start = at
    quoted = text[at : at + 1] == "'"
    at += quoted
    value: list[str] = []
    while at < len(text):
        character = text[at]
        if quoted and character == "'":
            return "".join(value), at + 1
        if not quoted and character in _SPACE:
            break
        if character == "\\":
            at += 1
            character = text[at : at + 1]
        value.append(character)
        at += 1
    if quoted:
        raise UsageError(
            "expected a closing single quote for the value at character "
            f"{start + 1} of the conninfo"
        )
    return "".join(value), at


# URI


def _read_uri(values: dict[str, str], text: str, at: int, is_strict: bool) -> None:
    if match := _USERINFO.match(text, at):
        at = match.end()
        for name in ("user", "password"):
            if match[name]:
                values[name] = _decoded(match[name], name)
    hosts, ports, at = _authority(text, at)
    dbname = ""
    if text[at : at + 1] == "/":
        match = _DBNAME.match(text, at + 1)
        assert match is not None, "it matches anything"
        dbname, at = match[0], match.end()
    query = text[at + 1 :]
    if is_strict and ":" in ports:
        raise UsageError(
            "expected host:port in the URI, got a second ':' behind a host; put an IPv6 address in "
            "square brackets"
        )
    if is_strict and "@" in hosts + ports + dbname:
        raise UsageError(
            "expected a URI of the form postgresql://user:password@host:port/dbname?keyword=value, "
            "got an '@' behind the one that ends the password; percent-encode '@', ':' and '/' "
            "inside user, password, host and dbname"
        )
    for name, value in (("host", hosts), ("port", ports), ("dbname", dbname)):
        if value:
            values[name] = _decoded(value, name)
    # A password that was cut by an unencoded '?' has its '@' in the query.
    may_hint = "@" not in hosts + ports + dbname + query and _PORTS.fullmatch(ports) is not None
    asked: dict[str, str] = {}
    for number, (name, value) in enumerate(_query(query), 1):
        _store(asked, name, value, f"in part {number} of the URI's query", may_hint)
    values.update(asked)
    # Looked at only now: what is given twice does not matter the first time.
    for name, value in values.items():
        if _NOT_UTF8.search(value):
            raise UsageError(
                f"expected UTF-8 in the URI's {name}, got other bytes; percent-encode it as UTF-8"
            )


def _authority(text: str, at: int) -> tuple[str, str, int]:
    """Return hosts and ports, both comma-separated, and the position behind them."""
    hosts, ports = [], []
    while True:
        host, at = _host(text, at)
        hosts.append(host)
        match = _PORT.match(text, at + 1) if text[at : at + 1] == ":" else None
        ports.append(match[0] if match else "")
        at = match.end() if match else at
        if text[at : at + 1] != ",":
            return ",".join(hosts), ",".join(ports), at
        at += 1


def _host(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != "[":
        match = _HOST.match(text, at)
        assert match is not None, "it matches anything"
        return match[0], match.end()
    end = text.find("]", at)
    if end <= at + 1 or text[end + 1 : end + 2] not in ("", ":", "/", "?", ","):
        raise UsageError(
            f"expected an address in square brackets at character {at + 1} of the URI, and ':', "
            "'/', '?' or ',' behind them, got another form; percent-encode a '[' that is none"
        )
    return text[at + 1 : end], end + 1


def _query(query: str) -> Iterator[tuple[str, str]]:
    parts = query.split("&")
    if not parts[-1]:
        parts.pop()
    for number, part in enumerate(parts, 1):
        name, equals, value = part.partition("=")
        if not equals or "=" in value:
            raise UsageError(
                f"expected keyword=value in part {number} of the URI's query, got another form; "
                "percent-encode '=' and '&' inside a value"
            )
        name = _decoded(name, f"query, part {number}")
        value = _decoded(value, f"query, part {number}")
        # For URIs that were made for JDBC.
        yield ("sslmode", "require") if (name, value) == ("ssl", "true") else (name, value)


def _decoded(value: str, what: str) -> str:
    value = value.strip(" ")
    if _PERCENT.search(value) or " " in value:
        raise UsageError(
            f"expected percent-encoded text in the URI's {what}, got a bad escape or a space; "
            "write '%25' for a percent sign and '%20' for a space"
        )
    if "%" not in value:
        return value
    try:
        encoded = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        reason = f"expected text that UTF-8 can say in the URI's {what}, got a lone surrogate"
    else:
        return unquote_to_bytes(encoded).decode("utf-8", "surrogateescape")
    raise UsageError(reason)
