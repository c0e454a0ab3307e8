"""A real server whose certificate, and whose versions of TLS, a test may change while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from pgrepl.testing import TemporaryServer
from pgrepl.testing.addresses import HOST
from tests.live.streams import eventually
from tests.support.certificates import Certificate, CertificateSet
from tests.support.clusters import CLIENT_CERTIFICATE_USER, Cluster

# What a server can present.
PRESENTED: Final = (
    "server",
    "wrong_host",
    "expired",
    "not_yet_valid",
    "revoked",
    "self_signed",
    "unknown",
)

_HBA: Final = f"""\
local     all,replication postgres trust
hostssl   all,replication only_tls {HOST}/32 trust
hostnossl all,replication only_plain {HOST}/32 trust
hostssl   all,replication {CLIENT_CERTIFICATE_USER} {HOST}/32 cert
host      all,replication only_tls,only_plain,{CLIENT_CERTIFICATE_USER} {HOST}/32 reject
host      all,replication anybody {HOST}/32 trust
host      all,replication by_password {HOST}/32 scram-sha-256
"""

USERS: Final = ("only_tls", "only_plain", CLIENT_CERTIFICATE_USER, "anybody", "by_password")
PASSWORD: Final = "pä ss'\"\\ scram"


class TLSServer:
    """A server of its own, with the accounts of `USERS`: may come in only with TLS, only without,
    only with a client certificate, in any way, and by `PASSWORD` (SCRAM)."""

    def __init__(self, cluster: TemporaryServer, major: int) -> None:
        self._cluster = cluster
        self.major = major

    @property
    def address(self) -> dict[str, Any]:
        """Keywords for `connect`; no user."""
        return {"host": HOST, "port": self._cluster.port, "dbname": "postgres"}

    def execute(self, statement: str | sql.Composed, *values: Any) -> list[tuple[Any, ...]]:
        """Run SQL as the superuser, in a new session, by the Unix socket."""
        with self._connect() as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        conninfo = self._cluster.dsn(host=str(self._cluster.socket_directory))
        return psycopg.connect(conninfo, autocommit=True)

    def configure(self, *, certificate: str = "server", **settings: str) -> None:
        """Have it present another certificate and take other settings; those that are not named
        are the default ones again."""
        wanted = {
            "ssl_cert_file": f"{certificate}.crt",
            "ssl_key_file": f"{certificate}.key",
            **settings,
        }
        with self._connect() as connection:
            connection.execute("ALTER SYSTEM RESET ALL")
            for name, value in wanted.items():
                connection.execute(
                    sql.SQL("ALTER SYSTEM SET {} = {}").format(
                        sql.Identifier(name), sql.Literal(value)
                    )
                )
            # A session has the time of the settings that the server had when it began.
            before = connection.execute("SELECT pg_conf_load_time()").fetchall()
            connection.execute("SELECT pg_reload_conf()")
        eventually(
            lambda: self.execute("SELECT pg_conf_load_time()") != before,
            "the server takes its new settings",
        )

    def present(self, certificate: Certificate) -> None:
        """Have it present a certificate that it did not have before."""
        for name, content in (("crt", certificate.certificate), ("key", certificate.key)):
            # Written over, so that they keep their owner and permissions.
            (self._cluster.data_directory / f"presented.{name}").write_bytes(content)
        self.configure(certificate="presented")

    def session(self, pid: int | None) -> tuple[Any, ...]:
        """User, version of TLS or None, and the client certificate's subject or None."""
        [row] = self.execute(
            "SELECT usename, version, client_dn FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
            " WHERE pid = %s",
            pid,
        )
        return row


@contextlib.contextmanager
def tls_server(cluster: Cluster, certificates: CertificateSet) -> Iterator[TLSServer]:
    """A server of the same version as `cluster`; a skip where that is built without TLS."""
    programs = cluster.own.bin_directory
    if not cluster.has_tls:
        pytest.skip(f"this build of PostgreSQL {cluster.version} has no TLS")
    files = {"ca.crt": certificates.ca.read_bytes(), "presented.crt": b"", "presented.key": b""}
    for name in PRESENTED:
        presented = getattr(certificates, name)
        files[f"{name}.crt"] = presented.certificate.read_bytes()
        files[f"{name}.key"] = presented.key.read_bytes()
    settings: dict[str, str | bool] = {
        "ssl": True,
        "ssl_cert_file": "server.crt",
        "ssl_key_file": "server.key",
        "ssl_ca_file": "ca.crt",
    }
    with TemporaryServer(programs, settings=settings, hba=_HBA, files=files) as started:
        server = TLSServer(started, cluster.major)
        for user in USERS:
            server.execute(
                sql.SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD {}").format(
                    sql.Identifier(user), sql.Literal(PASSWORD)
                )
            )
        yield server
