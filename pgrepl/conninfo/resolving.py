"""What it takes to connect: keyword arguments, conninfo, service, environment and defaults, in that
order, checked.

Source: PostgreSQL documentation, "Parameter Key Words" and "Environment Variables" (libpq).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Final, Literal, get_args

from ..errors import UsageError
from ..secret import Secret
from . import services
from .encodings import encoding_named
from .grammar import read
from .hosts import hosts
from .keywords import KEYWORDS, unknown_keyword
from .locations import operating_system_user
from .parameters import (
    AUTHENTICATION_METHODS,
    AuthenticationSettings,
    ChannelBinding,
    ConnectionParameters,
    SSLMode,
    TargetSessionAttrs,
    TCPSettings,
    TLSSettings,
)
from .values import Given, Values

__all__ = ["resolve"]

Replication = Literal["database", "physical"]

_SSLMODES: Final[tuple[SSLMode, ...]] = get_args(SSLMode)
_CHANNEL_BINDINGS: Final[tuple[ChannelBinding, ...]] = get_args(ChannelBinding)
_TARGETS: Final[tuple[TargetSessionAttrs, ...]] = get_args(TargetSessionAttrs)
_NEGOTIATIONS: Final[tuple[Literal["postgres", "direct"], ...]] = ("postgres", "direct")
_STRICT_SSLMODES: Final = ("require", "verify-ca", "verify-full")
_CERTIFICATE_MODES: Final[tuple[Literal["disable", "allow"], ...]] = ("disable", "allow")
_TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_PROTOCOL_VERSIONS: Final = {"3.0": 0x30000, "3.2": 0x30002, "latest": 0x30002}
_MAX_STARTUP: Final = 10000
# The server takes any abbreviation that is not ambiguous.
_TRUE: Final = re.compile(r"t(r(ue?)?)?|y(es?)?|on|1", re.IGNORECASE)
_FALSE: Final = re.compile(r"f(a(l(se?)?)?)?|no?|off?|0", re.IGNORECASE)
_DATE_STYLE: Final = re.compile(
    "(?P<DMY>dmy|euro.*)|(?P<MDY>mdy|us|noneuro.*)|(?P<YMD>ymd)"
    "|(?P<german>german)|(?P<style>iso|sql|postgres.*|default)",
    re.IGNORECASE | re.DOTALL,
)


def resolve(
    conninfo: str,
    keywords: Mapping[str, object],
    *,
    replication: Replication | None = None,
) -> ConnectionParameters:
    """Return the parameters: keyword arguments go before conninfo, before its service, before the
    environment, before defaults.

    `keywords` have str, int or bool as values, float too for connect_timeout, paths for files and
    hosts, `Secret` for what is one; None is as good as missing. `replication` goes before what the
    conninfo says of it. Reads the service file and the password file that it comes to, and no other
    file.

    Raises `UsageError` for what cannot be parsed, is unknown, makes no sense, or is known to libpq
    and not supported; no value is repeated in it.
    """
    try:
        return _resolve(conninfo, keywords, replication)
    except UsageError as error:
        refused: BaseException = UsageError(*error.args)
    except BaseException as error:
        # Ctrl-C, above all: what is called here has passwords in its local variables.
        refused = error.with_traceback(None)
        refused.__cause__ = refused.__context__ = None
    # Both may hold a password, which a traceback that shows locals would print. Not deleted, since
    # tools that print arguments look for them.
    conninfo, keywords = "", {}
    raise refused


def _resolve(
    conninfo: str, keywords: Mapping[str, object], replication: Replication | None
) -> ConnectionParameters:
    if replication not in ("database", "physical", None):
        raise UsageError(f"expected replication='database' or 'physical', got {replication!r}")
    values = Values(_given(conninfo, keywords))
    _refuse_what_cannot_be(values)
    replication = replication or _replication(values)
    user = values.text("user") or operating_system_user()
    dbname = values.text("dbname") or user
    lowest, highest = _protocol_versions(values)
    parameters = ConnectionParameters(
        hosts=hosts(values, _databases(dbname, replication), user),
        user=user,
        dbname=dbname,
        replication=replication,
        connect_timeout=values.seconds("connect_timeout"),
        target_session_attrs=values.word("target_session_attrs", _TARGETS),
        load_balance_hosts=values.word("load_balance_hosts", ("disable", "random")) == "random",
        requirepeer=values.optional("requirepeer"),
        application_name=_application_name(values),
        options=values.optional("options"),
        client_encoding=_client_encoding(values),
        settings=tuple(_settings()),
        min_protocol_version=lowest,
        max_protocol_version=highest,
        tls=_tls(values),
        tcp=TCPSettings(
            keepalives=values.integer("keepalives") != 0,
            keepalives_idle=values.positive("keepalives_idle"),
            keepalives_interval=values.positive("keepalives_interval"),
            keepalives_count=values.positive("keepalives_count"),
            tcp_user_timeout=values.positive("tcp_user_timeout"),
        ),
        authentication=_authentication(values),
    )
    _check_length(parameters)
    return parameters


# Who gave what


def _given(conninfo: str, keywords: Mapping[str, object]) -> dict[str, Given]:
    explicit = {
        name: Given(text, "the conninfo") for name, text in read(conninfo, is_strict=True).items()
    }
    for name, argument in keywords.items():
        if argument is not None:
            explicit[name] = _argument(name, argument)
    variables = {
        keyword.name: Given(os.environ[keyword.variable], keyword.variable)
        for keyword in KEYWORDS.values()
        if keyword.variable is not None and keyword.variable in os.environ
    }
    fallback = variables | explicit
    section: dict[str, Given] = {}
    if "service" in fallback:
        section = services.look_up(fallback["service"], fallback.get("servicefile"))
    given = variables | section | explicit
    if "sslmode" not in given:
        if os.environ.get("PGREQUIRESSL", "").startswith("1"):
            given["sslmode"] = Given("require", "PGREQUIRESSL")
        elif "sslrootcert" in given and given["sslrootcert"].text == "system":
            given["sslmode"] = Given("verify-full", "sslrootcert=system")
    return given


def _argument(name: str, argument: object) -> Given:
    if name not in KEYWORDS:
        raise unknown_keyword(name, "as keyword argument", is_name=name.isidentifier())
    keyword = KEYWORDS[name]
    source = f"the argument {name}"
    match argument:
        case str():
            return Given(str.__str__(argument), source)
        case bool():
            return Given("1" if argument else "0", source)
        case float() if name == "connect_timeout":
            return Given("", source, argument)
        case int():
            # A number of thousands of digits has no text in Python, and fits nowhere.
            return Given(str(argument) if abs(argument) < 2**64 else "too large", source)
        case PurePath() if keyword.is_path:
            return Given(str(argument), source)
        case Secret() if keyword.is_secret:
            return Given(argument.reveal(), source)
    kinds = ["str", "int", "bool"] + ["Path"] * keyword.is_path + ["Secret"] * keyword.is_secret
    raise UsageError(
        f"expected {', '.join(kinds[:-1])} or {kinds[-1]} for {name}, got {type(argument).__name__}"
    )


# What it means


def _refuse_what_cannot_be(values: Values) -> None:
    if values.text("gssencmode") == "require":
        raise values.refusal(
            "gssencmode", "prefer or disable", "require: pgrepl encrypts by TLS alone, see sslmode"
        )
    values.word("gssencmode", ("disable", "prefer"))
    if values.text("sslcertmode") == "require":
        raise values.refusal(
            "sslcertmode",
            "allow or disable",
            "require: pgrepl cannot tell whether a server asked for the certificate",
        )
    if values.text("sslcompression") not in ("", "0"):
        raise values.refusal(
            "sslcompression", "0", "something else: compressed TLS is not safe, leave it out"
        )


def _client_encoding(values: Values) -> str | None:
    text = values.text("client_encoding")
    if text in ("", "auto"):
        return None
    encoding = encoding_named(text)
    if encoding is None:
        raise values.refusal(
            "client_encoding",
            "auto or an encoding that PostgreSQL and Python have",
            "another; with SQL_ASCII text comes as the database stores it",
        )
    return encoding


def _application_name(values: Values) -> str:
    # An empty one is one: libpq sends none then, not even the other.
    if "application_name" in values:
        return values.text("application_name")
    return values.text("fallback_application_name") or "pgrepl"


def _replication(values: Values) -> Replication:
    text = values.text("replication")
    if text == "database" or "replication" not in values:
        return "database"
    if _TRUE.fullmatch(text):
        return "physical"
    got = "another word"
    if _FALSE.fullmatch(text):
        got = "a false one: pgrepl connects for replication only"
    raise values.refusal("replication", "'database' (logical) or a true boolean (physical)", got)


def _databases(dbname: str, replication: Replication) -> tuple[str, ...]:
    """Return what the password file may call the database."""
    # A physical connection has none: PostgreSQL's tools look for "replication" where no database
    # was named, psql for the database all the same.
    return (dbname,) if replication == "database" else ("replication", dbname)


def _protocol_versions(values: Values) -> tuple[int, int]:
    words = tuple(_PROTOCOL_VERSIONS)
    lowest = highest = _PROTOCOL_VERSIONS["3.0"]
    if "min_protocol_version" in values:
        lowest = _PROTOCOL_VERSIONS[values.word("min_protocol_version", words)]
    if "max_protocol_version" in values:
        highest = _PROTOCOL_VERSIONS[values.word("max_protocol_version", words)]
    elif lowest > highest:
        highest = _PROTOCOL_VERSIONS["latest"]
    if lowest > highest:
        raise UsageError(
            "expected min_protocol_version to be at most max_protocol_version, got a greater one"
        )
    return lowest, highest


def _tls(values: Values) -> TLSSettings:
    sslmode = values.word("sslmode", _SSLMODES)
    negotiation = values.word("sslnegotiation", _NEGOTIATIONS)
    if values.text("sslrootcert") == "system" and sslmode != "verify-full":
        raise UsageError(
            f"expected sslmode=verify-full with sslrootcert=system, got {sslmode}: anybody can get "
            "a certificate of a public authority for another name"
        )
    if negotiation == "direct" and sslmode not in _STRICT_SSLMODES:
        raise UsageError(
            f"expected sslmode {', '.join(_STRICT_SSLMODES)} with sslnegotiation=direct, got "
            f"{sslmode}: there is no way back from it to a connection without TLS"
        )
    lowest = _tls_version(values, "ssl_min_protocol_version") or "TLSv1.2"
    highest = _tls_version(values, "ssl_max_protocol_version")
    if highest is not None and _TLS_VERSIONS.index(lowest) > _TLS_VERSIONS.index(highest):
        raise UsageError(
            f"expected ssl_min_protocol_version to be at most ssl_max_protocol_version, got "
            f"{lowest} and {highest}"
        )
    return TLSSettings(
        sslmode=sslmode,
        sslnegotiation=negotiation,
        sslrootcert=values.optional("sslrootcert"),
        sslcert=values.optional("sslcert"),
        sslkey=values.optional("sslkey"),
        sslpassword=values.secret("sslpassword"),
        sslcertmode=values.word("sslcertmode", _CERTIFICATE_MODES),
        sslcrl=values.optional("sslcrl"),
        sslcrldir=values.optional("sslcrldir"),
        sslsni=values.flag("sslsni"),
        ssl_min_protocol_version=lowest,
        ssl_max_protocol_version=highest,
    )


def _tls_version(values: Values, name: str) -> str | None:
    text = values.text(name).lower()
    for version in _TLS_VERSIONS:
        if version.lower() == text:
            return version
    if not text:
        return None
    raise values.refusal(name, f"one of {', '.join(_TLS_VERSIONS)}", "another word")


def _authentication(values: Values) -> AuthenticationSettings:
    client_key, server_key = values.key("scram_client_key"), values.key("scram_server_key")
    if (client_key is None) != (server_key is None):
        raise UsageError(
            "expected scram_client_key and scram_server_key together, got one of them: without the "
            "other, either the client or the server cannot be checked"
        )
    return AuthenticationSettings(
        require_auth=_required_methods(values),
        channel_binding=values.word("channel_binding", _CHANNEL_BINDINGS),
        allow_cleartext_password=values.flag("allow_cleartext_password"),
        scram_max_iterations=values.integer("scram_max_iterations", 1),
        scram_client_key=client_key,
        scram_server_key=server_key,
        krbsrvname=values.text("krbsrvname") or "postgres",
        gssdelegation=values.flag("gssdelegation"),
    )


def _required_methods(values: Values) -> frozenset[str] | None:
    if "require_auth" not in values:
        return None
    text = values.text("require_auth") or "none"
    listed = text.split(",")
    negated = [each.startswith("!") for each in listed]
    methods = [each.removeprefix("!") for each in listed]
    known = ", ".join(sorted(AUTHENTICATION_METHODS))
    if any(negated) and not all(negated):
        raise values.refusal("require_auth", "methods all with a '!', or all without", "a mixture")
    if not AUTHENTICATION_METHODS.issuperset(methods):
        raise values.refusal("require_auth", f"methods among {known}, comma-separated")
    if len(set(methods)) < len(methods):
        raise values.refusal("require_auth", "each method once", "one of them twice")
    return AUTHENTICATION_METHODS.difference(methods) if any(negated) else frozenset(methods)


# The session


def _settings() -> list[tuple[str, str]]:
    """Return the settings that the environment asks for; "default" is what the server has."""
    settings = []
    for variable, name in (("PGTZ", "TimeZone"), ("PGGEQO", "geqo"), ("PGDATESTYLE", "DateStyle")):
        value = os.environ.get(variable, "")
        if not value or value.lower() == "default":
            continue
        settings.append((name, _date_style(value) if variable == "PGDATESTYLE" else value))
    return settings


def _date_style(value: str) -> str:
    """Return ISO, which values are read by, with the order of the fields that was asked for."""
    words = [_DATE_STYLE.fullmatch(word.strip()) for word in value.split(",")]
    found = {word.lastgroup or "" for word in words if word is not None}
    orders = found - {"german", "style"}
    if None in words or len(orders) > 1:
        raise UsageError(
            "expected a style and at most one order of dates in PGDATESTYLE, such as 'ISO, DMY', "
            "got something else"
        )
    if "german" in found and not orders:
        orders = {"DMY"}
    return ", ".join(["ISO", *orders])


def _check_length(parameters: ConnectionParameters) -> None:
    said = parameters.startup_parameters()
    lengths = {
        name: len(name) + len(value.encode("utf-8", "surrogateescape")) + 2
        for name, value in said.items()
    }
    # The version before them, a zero byte behind.
    length = 4 + sum(lengths.values()) + 1
    if length > _MAX_STARTUP:
        longest = max(lengths, key=lambda name: lengths[name])
        if longest == "database":
            longest = "user" if parameters.dbname == parameters.user else "dbname"
        raise UsageError(
            f"expected at most {_MAX_STARTUP} bytes of startup parameters, the most that a server "
            f"reads, got {length}; shorten {longest}"
        )
