"""The keywords of a conninfo: one table, which everything else here goes by.

A keyword is libpq's of PostgreSQL 18, of 19 where that is more, or pgrepl's own. Each is known to
the grammar; what pgrepl does not support is refused by its name when a connection is to be made,
never passed over.

Source: PostgreSQL documentation, "Parameter Key Words" and "Environment Variables" (libpq).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Final, Literal

from ..errors import UsageError

__all__ = ["KEYWORDS", "Keyword", "unknown_keyword"]


@dataclass(frozen=True, slots=True)
class Keyword:
    """One keyword: `becomes` says in words what becomes of its value.

    `variable`: the environment variable that stands in for it; `default`: what holds where neither
    is there, None for nothing; `refusal`: what to do instead, where pgrepl does not support it.
    """

    name: str
    variable: str | None = None
    default: str | None = None
    becomes: str = ""
    refusal: str | None = None
    is_secret: bool = False
    is_path: bool = False
    origin: Literal["libpq 18", "libpq 19", "pgrepl"] = "libpq 18"


_OAUTH: Final = "pgrepl has no OAuth; use another method of authentication"

_TABLE: Final = (
    # Where to
    Keyword("service", "PGSERVICE", None, "a section of pg_service.conf, see below"),
    Keyword(
        "servicefile",
        "PGSERVICEFILE",
        None,
        "the file with that section",
        is_path=True,
        origin="libpq 19",
    ),
    Keyword(
        "host",
        "PGHOST",
        None,
        "names, addresses or folders of Unix sockets, see below",
        is_path=True,
    ),
    Keyword("hostaddr", "PGHOSTADDR", None, "addresses to connect to, without a lookup"),
    Keyword("port", "PGPORT", "5432", "one for all hosts, or one for each"),
    Keyword("dbname", "PGDATABASE", None, "the database, the user's name by default; literal"),
    Keyword(
        "target_session_attrs",
        "PGTARGETSESSIONATTRS",
        "any",
        "`read-write`, `read-only`, `primary`, `standby`, `prefer-standby`",
    ),
    Keyword("load_balance_hosts", "PGLOADBALANCEHOSTS", "disable", "`random`: in any order"),
    Keyword("replication", None, None, "`database`, or a true boolean for physical replication"),
    # Who
    Keyword("user", "PGUSER", None, "the role, the operating system's user by default"),
    Keyword("password", "PGPASSWORD", None, "goes before the password file", is_secret=True),
    Keyword("passfile", "PGPASSFILE", None, "the password file, see below", is_path=True),
    Keyword("require_auth", "PGREQUIREAUTH", None, "methods that will do, or `!` and those not"),
    Keyword(
        "channel_binding", "PGCHANNELBINDING", "prefer", "`disable`, `require`: SCRAM bound to TLS"
    ),
    Keyword(
        "scram_client_key", None, None, "in place of a password, with the next one", None, True
    ),
    Keyword("scram_server_key", None, None, "base64 of 32 bytes, like the one before", None, True),
    Keyword("requirepeer", "PGREQUIREPEER", None, "who must own the server behind a Unix socket"),
    Keyword("krbsrvname", "PGKRBSRVNAME", "postgres", "the Kerberos service"),
    Keyword("gssdelegation", "PGGSSDELEGATION", "0", "`1`: credentials are forwarded"),
    Keyword(
        "gsslib",
        "PGGSSLIB",
        None,
        "refused",
        "the library that is installed is used; leave it out",
    ),
    Keyword("oauth_issuer", None, None, "refused", _OAUTH),
    Keyword("oauth_client_id", None, None, "refused", _OAUTH),
    Keyword("oauth_client_secret", None, None, "refused", _OAUTH, True),
    Keyword("oauth_scope", None, None, "refused", _OAUTH),
    Keyword("oauth_ca_file", "PGOAUTHCAFILE", None, "refused", _OAUTH, origin="libpq 19"),
    Keyword(
        "allow_cleartext_password",
        None,
        "0",
        "`1`: a password may go unencrypted to another machine",
        origin="pgrepl",
    ),
    Keyword(
        "scram_max_iterations",
        None,
        "100000",
        "how much work a server may ask for",
        origin="pgrepl",
    ),
    # How: TLS
    Keyword(
        "sslmode",
        "PGSSLMODE",
        "prefer",
        "`disable`, `allow`, `require`, `verify-ca`, `verify-full`; the last by default where "
        "sslrootcert is `system`",
    ),
    Keyword(
        "sslnegotiation",
        "PGSSLNEGOTIATION",
        "postgres",
        "`direct`: TLS at once, for sslmode `require` and stricter",
    ),
    Keyword("sslrootcert", "PGSSLROOTCERT", None, "a file, or `system`", is_path=True),
    Keyword("sslcert", "PGSSLCERT", None, "the client's certificate", is_path=True),
    Keyword("sslkey", "PGSSLKEY", None, "its key", is_path=True),
    Keyword("sslpassword", None, None, "the key's password", is_secret=True),
    Keyword("sslcertmode", "PGSSLCERTMODE", "allow", "`disable`; `require` is refused"),
    Keyword("sslcrl", "PGSSLCRL", None, "revoked certificates", is_path=True),
    Keyword("sslcrldir", "PGSSLCRLDIR", None, "a folder of them", is_path=True),
    Keyword("sslsni", "PGSSLSNI", "1", "`0`: the host's name is not sent in clear"),
    Keyword("sslcompression", "PGSSLCOMPRESSION", "0", "anything but `0` is refused"),
    Keyword(
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        "TLSv1.2",
        "`TLSv1`, `TLSv1.1`, `TLSv1.3`",
    ),
    Keyword("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", None, "likewise"),
    Keyword(
        "sslkeylogfile",
        None,
        None,
        "refused",
        "no connection string makes pgrepl write a file, least of all the keys of a session; "
        "leave it out",
        is_path=True,
    ),
    Keyword(
        "gssencmode",
        "PGGSSENCMODE",
        "prefer",
        "`disable`; no matter here, but `require` is refused",
    ),
    # How: the connection and the session
    Keyword("connect_timeout", "PGCONNECT_TIMEOUT", None, "seconds for each address; 0: no limit"),
    Keyword("keepalives", None, "1", "`0`: TCP does not probe the peer"),
    Keyword("keepalives_idle", None, None, "seconds until it probes"),
    Keyword("keepalives_interval", None, None, "seconds between probes"),
    Keyword("keepalives_count", None, None, "probes without an answer"),
    Keyword("tcp_user_timeout", None, None, "milliseconds that sent data may wait for an answer"),
    Keyword("min_protocol_version", "PGMINPROTOCOLVERSION", None, "`3.0`, `3.2` or `latest`"),
    Keyword(
        "max_protocol_version",
        "PGMAXPROTOCOLVERSION",
        None,
        "likewise; 3.0, or `latest` where the lowest is above",
    ),
    Keyword("client_encoding", "PGCLIENTENCODING", None, "an encoding, or `auto`, see below"),
    Keyword("options", "PGOPTIONS", "", "command-line options for the server"),
    Keyword("application_name", "PGAPPNAME", None, "the session's name; empty for none"),
    Keyword(
        "fallback_application_name",
        None,
        None,
        "its name where none was given, instead of `pgrepl`",
    ),
)

KEYWORDS: Final = {keyword.name: keyword for keyword in _TABLE}
"""The table, by name."""

# What other libraries call them.
_OTHER_NAMES: Final = {
    "address": "hostaddr",
    "database": "dbname",
    "db": "dbname",
    "hostname": "host",
    "passwd": "password",
    "pgpassfile": "passfile",
    "pwd": "password",
    "server": "host",
    "ssl": "sslmode",
    "timeout": "connect_timeout",
    "username": "user",
}


# All keywords look like this. Whatever else stands before an equals sign may be a piece of a value,
# in base64 perhaps, whose padding is one.
_WORD: Final = re.compile(r"[a-z]{2,}(_[a-z]+)*|[A-Z]{2,}(_[A-Z]+)*|[A-Z][a-z]+")
_LONGEST_WORD: Final = 40
_MOST_LIKELY: Final = 2


def unknown_keyword(name: str | None, where: str, *, is_name: bool = False) -> UsageError:
    """Return the error for a word that is none of the keywords.

    It is repeated where it looks like one, or `is_name` says that it was no value's piece. None
    where it may be a piece of a password, as behind a forgotten quote: even a likeness to a keyword
    would tell too much.
    """
    got = "another word"
    hint = "the keywords are those of libpq, put a value with spaces in single quotes"
    if name is not None:
        if len(name) <= _LONGEST_WORD and (is_name or _WORD.fullmatch(name)):
            got = repr(name)
        if meant := _meant(name.lower()):
            hint = f"did you mean {' or '.join(meant)}?"
    return UsageError(f"expected a known connection option {where}, got {got}; {hint}")


def _meant(name: str) -> list[str]:
    """Return the keywords that a word is like, the likeliest first."""
    words = [*KEYWORDS, *_OTHER_NAMES]
    close = [name] if name in _OTHER_NAMES else []
    close += difflib.get_close_matches(name, words, _MOST_LIKELY, 0.75)
    return list(dict.fromkeys(_OTHER_NAMES.get(word, word) for word in close))[:_MOST_LIKELY]
