"""What it takes to connect, checked and with its defaults: the result of reading a conninfo.

Fields have the names of libpq's keywords. Nothing here reads a file, a variable or a socket.

Source: PostgreSQL documentation, "Parameter Key Words" (libpq).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from ..secret import Secret
from .encodings import SQL_ASCII, UTF8

__all__ = [
    "AUTHENTICATION_METHODS",
    "AuthenticationSettings",
    "ChannelBinding",
    "ConnectionParameters",
    "Host",
    "SSLMode",
    "TCPSettings",
    "TLSSettings",
    "TargetSessionAttrs",
]

SSLMode: TypeAlias = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
ChannelBinding: TypeAlias = Literal["disable", "prefer", "require"]
TargetSessionAttrs: TypeAlias = Literal[
    "any", "read-write", "read-only", "primary", "standby", "prefer-standby"
]

AUTHENTICATION_METHODS: Final = frozenset(
    {"password", "md5", "gss", "sspi", "scram-sha-256", "oauth", "none"}
)
"""The words of require_auth."""


@dataclass(frozen=True, slots=True)
class Host:
    """One server of the list.

    `host` is a name, an address, or the folder of a Unix socket ("/..." or, in the abstract
    namespace, "@..."); empty where only `hostaddr` was given. `hostaddr` is connected to in place
    of what `host` would be looked up as. `password` is the one for this server.
    """

    host: str
    hostaddr: str | None = None
    port: int = 5432
    password: Secret | None = None

    @property
    def is_unix_socket(self) -> bool:
        """Whether it is reached by a Unix socket."""
        return self.hostaddr is None and self.host.startswith(("/", "@"))

    @property
    def socket_path(self) -> str:
        """The address of the Unix socket; one in the abstract namespace begins with a zero
        byte."""
        folder = "\0" + self.host[1:] if self.host.startswith("@") else self.host
        return f"{folder}/.s.PGSQL.{self.port}"

    @property
    def where(self) -> str:
        """The server's address as people write it."""
        if self.is_unix_socket:
            return f"the socket {self.host}/.s.PGSQL.{self.port}"
        host = self.host or self.hostaddr or ""
        shown = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        if self.host and self.hostaddr:
            return f"{shown} ({self.hostaddr})"
        return shown


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """How a connection is encrypted, and what is asked of the server's certificate.

    File names are as they were given, ``~`` not expanded, None where none was; `sslrootcert` may be
    "system". Versions are those of TLS: "TLSv1.2"; None: no limit.
    """

    sslmode: SSLMode = "prefer"
    sslnegotiation: Literal["postgres", "direct"] = "postgres"
    sslrootcert: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    sslpassword: Secret | None = None
    sslcertmode: Literal["disable", "allow"] = "allow"
    sslcrl: str | None = None
    sslcrldir: str | None = None
    sslsni: bool = True
    ssl_min_protocol_version: str | None = "TLSv1.2"
    ssl_max_protocol_version: str | None = None


@dataclass(frozen=True, slots=True)
class AuthenticationSettings:
    """Which methods of authentication are good enough, and with what.

    `require_auth`: those among `AUTHENTICATION_METHODS` that are, None: all of them. "none" stands
    for a server that asks for nothing. `allow_cleartext_password` and `scram_max_iterations` are
    pgrepl's own: whether a password may go unencrypted to a host that is not this one, and how much
    work a server may ask for before it has proved anything.
    """

    require_auth: frozenset[str] | None = None
    channel_binding: ChannelBinding = "prefer"
    allow_cleartext_password: bool = False
    scram_max_iterations: int = 100_000
    scram_client_key: Secret | None = None
    scram_server_key: Secret | None = None
    krbsrvname: str = "postgres"
    gssdelegation: bool = False


@dataclass(frozen=True, slots=True)
class TCPSettings:
    """The socket's options: seconds, but for `tcp_user_timeout`, milliseconds; None: as the
    operating system has it."""

    keepalives: bool = True
    keepalives_idle: int | None = None
    keepalives_interval: int | None = None
    keepalives_count: int | None = None
    tcp_user_timeout: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectionParameters:
    """Everything that it takes to connect.

    `hosts` are tried in order, or in any with `load_balance_hosts`. `connect_timeout`, seconds,
    holds for each address of each host anew; None: no limit. `client_encoding` by PostgreSQL's
    name, None for none. `settings` are startup parameters
    beyond the fixed ones, by their names.
    """

    hosts: tuple[Host, ...]
    user: str
    dbname: str
    replication: Literal["database", "physical"] = "database"
    connect_timeout: float | None = None
    target_session_attrs: TargetSessionAttrs = "any"
    load_balance_hosts: bool = False
    requirepeer: str | None = None
    application_name: str = "pgrepl"
    options: str | None = None
    client_encoding: str | None = None
    settings: tuple[tuple[str, str], ...] = ()
    min_protocol_version: int = 0x30000
    max_protocol_version: int = 0x30000
    tls: TLSSettings = field(default_factory=TLSSettings)
    tcp: TCPSettings = field(default_factory=TCPSettings)
    authentication: AuthenticationSettings = field(default_factory=AuthenticationSettings)

    def startup_parameters(self) -> dict[str, str]:
        """What the StartupMessage says: nothing that a pooler would not let through unasked."""
        is_physical = self.replication == "physical"
        parameters = {
            "user": self.user,
            # The server has no use for it on a physical connection, but what routes connections to
            # servers may.
            "database": self.dbname,
            "replication": "true" if is_physical else "database",
            "client_encoding": self._asked_encoding,
        }
        if not is_physical:
            parameters["DateStyle"] = "ISO"
        parameters.update(self.settings)
        if self.application_name:
            parameters["application_name"] = self.application_name
        if self.options:
            parameters["options"] = self.options
        return parameters

    def session_settings(self) -> dict[str, str]:
        """What is set when the session has begun: text in one form, whatever the server's settings
        are. None for physical replication, which has no SQL and no values."""
        if self.replication == "physical":
            return {}
        return {
            "DateStyle": self.startup_parameters()["DateStyle"],
            "IntervalStyle": "postgres",
            "extra_float_digits": "3",
            "bytea_output": "hex",
            "client_encoding": self._asked_encoding,
        }

    @property
    def _asked_encoding(self) -> str:
        # What other encodings are for is known when the database's is, see `python_codec`.
        return SQL_ASCII if self.client_encoding == SQL_ASCII else UTF8
