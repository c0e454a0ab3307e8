"""Connection strings and what becomes of them: conninfo, keyword arguments, PG* variables,
defaults.

A conninfo may hold a password, so no error repeats any part of it but the names of known keywords:
a mistake is told by its place.

Source: PostgreSQL documentation, "Connection Strings" and "Parameter Key Words" (libpq).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from ..errors import UsageError
from ..secret import Secret

__all__ = ["ConnectionParameters", "resolve"]

_SUPPORTED: Final = (
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "connect_timeout",
    "application_name",
    "options",
)
# What libpq 18 knows beyond that: refused by name, never ignored.
_NOT_SUPPORTED: Final = (
    "channel_binding",
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "service",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslnegotiation",
    "sslpassword",
    "sslsni",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "target_session_attrs",
    "tcp_user_timeout",
)
_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
}
_SSLMODES: Final = ("disable", "prefer", "require", "verify-ca", "verify-full")
_URI: Final = re.compile(r"postgres(?:ql)?://")
_AUTHORITY: Final = re.compile(
    r"(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    r"(?P<host>\[[^]/]+\]|(?!\[)[^:/?]*)(?::(?P<port>[^/?]*))?"
    r"(?:/(?P<dbname>[^?]*))?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
# libpq's idea of white space. Python's takes in more, and a password may hold any of that.
_SPACE: Final = " \t\n\r\f\v"
_KEYWORD: Final = re.compile(rf"([^{_SPACE}=]+)[{_SPACE}]*=[{_SPACE}]*")
# Debian's, and the server's own default.
_SOCKET_DIRECTORIES: Final = ("/var/run/postgresql", "/tmp")


@dataclass(frozen=True, slots=True)
class ConnectionParameters:
    """Everything that it takes to connect, checked and with its defaults."""

    host: str
    port: int
    user: str
    password: Secret | None
    dbname: str
    sslmode: str
    sslrootcert: str | None
    connect_timeout: float | None
    application_name: str
    options: str | None
    replication: str

    @property
    def is_unix_socket(self) -> bool:
        """Whether `host` is the folder of a Unix socket."""
        return self.host.startswith("/")

    @property
    def where(self) -> str:
        """The server's address as people write it."""
        if self.is_unix_socket:
            return f"the socket {self.host}/.s.PGSQL.{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def startup_parameters(self) -> dict[str, str]:
        """What the StartupMessage says. The settings give text one form, whatever the server's
        are."""
        parameters = {
            "user": self.user,
            "replication": "true" if self.replication == "physical" else "database",
            "application_name": self.application_name,
            "client_encoding": "UTF8",
            "DateStyle": "ISO",
            "IntervalStyle": "postgres",
            "extra_float_digits": "3",
            "bytea_output": "hex",
        }
        if self.replication == "database":
            parameters["database"] = self.dbname
        if self.options:
            parameters["options"] = self.options
        return parameters


def resolve(
    conninfo: str, keywords: Mapping[str, object], *, replication: str = "database"
) -> ConnectionParameters:
    """Return the parameters: keyword arguments go before conninfo, before the environment.

    Raises `UsageError` for what cannot be parsed, is unknown, or is known to libpq and not
    supported.
    """
    if replication not in ("database", "physical"):
        raise UsageError(f"expected replication='database' or 'physical', got {replication!r}")
    if not isinstance(conninfo, str):
        raise UsageError(f"expected the conninfo as a str, got {type(conninfo).__name__}")
    values = {name: os.environ[env] for name, env in _VARIABLES.items() if env in os.environ}
    for name, value in _parse(conninfo):
        values[_known(name)] = value
    for name, argument in keywords.items():
        if argument is not None:
            values[_known(name)] = str(argument)
    for name, value in values.items():
        if "\0" in value:
            raise UsageError(f"expected a value without zero bytes for {name}")
        if not _is_encodable(value):
            raise UsageError(f"expected text that UTF-8 can say for {name}, got a lone surrogate")

    user = values.get("user") or _operating_system_user()
    password = values.get("password")
    port = _integer("port", values.get("port") or "5432", 1, 65535)
    return ConnectionParameters(
        host=_host(values.get("host"), port),
        port=port,
        user=user,
        password=Secret(password) if password else None,
        dbname=values.get("dbname") or user,
        sslmode=_sslmode(values),
        sslrootcert=values.get("sslrootcert") or None,
        connect_timeout=_connect_timeout(values.get("connect_timeout")),
        application_name=values.get("application_name") or "pgrepl",
        options=values.get("options"),
        replication=replication,
    )


def _is_encodable(value: str) -> bool:
    # What Python made of bytes of the environment that are not UTF-8 can be sent as it came.
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _parse(conninfo: str) -> Iterator[tuple[str, str]]:
    if match := _URI.match(conninfo):
        return _parse_uri(conninfo[match.end() :])
    return _parse_keywords(conninfo)


def _parse_uri(rest: str) -> Iterator[tuple[str, str]]:
    match = _AUTHORITY.fullmatch(rest)
    # An '@' that separates nothing stands in a password which was not percent-encoded; what is in
    # front of it or behind it would be shown as the name of a host.
    if match is None or "@" in match["host"] or "@" in (match["dbname"] or ""):
        raise UsageError(
            "expected a URI of the form postgresql://user:password@host:port/dbname?keyword=value; "
            "percent-encode '@', ':' and '/' inside user, password and dbname"
        )
    for name in ("user", "password", "host", "port", "dbname"):
        value = match[name]
        if name == "host" and value.startswith("["):
            value = value[1:-1]
        if value:
            yield name, _percent_decoded(value, name)
    parts = match["query"].split("&") if match["query"] else []
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    for number, part in enumerate(parts, 1):
        name, equals, value = part.partition("=")
        if not equals or "=" in value:
            raise UsageError(
                f"expected keyword=value in part {number} of the URI's query, got another form"
            )
        yield (
            _percent_decoded(name, "query"),
            _percent_decoded(value, f"part {number} of the query"),
        )


def _percent_decoded(value: str, what: str) -> str:
    value = value.strip(" ")
    if _PERCENT.search(value) or " " in value:
        raise UsageError(
            f"expected percent-encoded text in the URI's {what}, got a bad escape or a space; "
            "write '%25' for a percent sign and '%20' for a space"
        )
    try:
        return unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        reason = f"expected UTF-8 behind the percent escapes in the URI's {what}"
    raise UsageError(reason)


def _parse_keywords(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while (start := _skip_space(text, at)) < len(text):
        match = _KEYWORD.match(text, start)
        if match is None:
            raise UsageError(
                f"expected keyword=value at character {start + 1} of the conninfo; put a value "
                "with spaces in single quotes"
            )
        value, at = _value(text, match.end())
        yield match[1], value


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


def _known(name: str) -> str:
    if name in _SUPPORTED:
        return name
    if name in _NOT_SUPPORTED:
        raise UsageError(
            f"the connection option {name} is not supported by pgrepl; supported: "
            f"{', '.join(_SUPPORTED)}"
        )
    # Not repeated: where a quote was forgotten, this is a piece of the password.
    close = difflib.get_close_matches(name, _SUPPORTED, 1)
    hint = f"did you mean {close[0]}?" if close else f"supported: {', '.join(_SUPPORTED)}"
    raise UsageError(f"expected a known connection option, got another word; {hint}")


def _host(value: str | None, port: int) -> str:
    if value and "," in value:
        raise UsageError("several hosts in one conninfo are not supported by pgrepl; name one")
    if value:
        return value
    if os.name == "nt":
        return "localhost"
    for directory in _SOCKET_DIRECTORIES:
        if (Path(directory) / f".s.PGSQL.{port}").exists():
            return directory
    return _SOCKET_DIRECTORIES[0]


def _sslmode(values: Mapping[str, str]) -> str:
    default = "verify-full" if values.get("sslrootcert") == "system" else "prefer"
    mode = values.get("sslmode") or default
    if mode not in _SSLMODES:
        # Not repeated, and no number below either: what was given may be a piece of a password.
        got = "allow, which pgrepl does not support" if mode == "allow" else "another word"
        raise UsageError(f"expected sslmode {', '.join(_SSLMODES)}, got {got}")
    if values.get("sslrootcert") == "system" and mode != "verify-full":
        raise UsageError(
            f"expected sslmode=verify-full with sslrootcert=system, got {mode}: anybody can get a "
            "certificate of a public authority for another name"
        )
    return mode


def _connect_timeout(value: str | None) -> float | None:
    seconds = _integer("connect_timeout", value, -(2**31), 2**31 - 1) if value else 0
    return float(seconds) if seconds > 0 else None


def _integer(name: str, value: str, low: int, high: int) -> int:
    text = value.strip()
    if re.fullmatch(r"[+-]?[0-9]{1,10}", text) is None or not low <= int(text) <= high:
        raise UsageError(
            f"expected an integer between {low} and {high} for {name}, got something else"
        )
    return int(text)


def _operating_system_user() -> str:
    # By the user id, as libpq does: variables such as LOGNAME can name somebody else.
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        import getpass

        try:
            return getpass.getuser()
        except (ImportError, KeyError, OSError):
            reason = "expected a user, and this process runs as one without a name; pass user="
    raise UsageError(reason)
