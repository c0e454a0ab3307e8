"""The servers that live tests talk to: one for each major version, and a database for each test.

A cluster of our own has an account for every way to log in (`PASSWORDS`, `_AUTHENTICATION`), TLS
with a test certificate where the build can do it, and settings for logical replication. Instead of
those, PGREPL_TEST_DSN names a server that is already there; tests then do what it can do, and ask
for `cluster.own` if they need more.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgrepl.testing import TemporaryServer
from pgrepl.testing.addresses import HOST, conninfo_string
from tests.support import servers
from tests.support.certificates import CertificateSet
from tests.support.versions import GIVEN

# Each password has what quoting, URI escaping, SASLprep and UTF-8 can trip over.
PASSWORDS: Final[Mapping[str, str]] = {
    "u_password": "pä ss'\"\\ cleartext",
    "u_md5": "pä ss'\"\\ md5",
    "u_scram": "pä ss'\"\\ scram",
    "u_md5_scram": "pä ss'\"\\ md5 that is scram",
}

_AUTHENTICATION: Final[Mapping[str, str]] = {
    "postgres": "trust",
    "u_trust": "trust",
    "u_password": "password",
    "u_md5": "md5",
    "u_scram": "scram-sha-256",
    # What was stored for SCRAM is asked for by SCRAM.
    "u_md5_scram": "md5",
    "u_reject": "reject",
}

# Who may come in only with TLS, only without, and only with a client certificate.
_ONLY_TLS, _ONLY_PLAIN, _ONLY_CERTIFICATE = "u_ssl", "u_nossl", "u_cert"

_TLS_SETTINGS: Final[Mapping[str, str | bool]] = {
    "ssl": True,
    "ssl_cert_file": "server.crt",
    "ssl_key_file": "server.key",
    "ssl_ca_file": "ca.crt",
}

CLIENT_CERTIFICATE_USER: Final = _ONLY_CERTIFICATE

_numbers = itertools.count(1)


class NoServer(Exception):
    """There is nothing to run live tests on; the text says what was looked for."""


class Cluster:
    """A running server: how to reach it, what it can do, and SQL on it as its superuser."""

    def __init__(
        self,
        parameters: Mapping[str, Any],
        *,
        server: TemporaryServer | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._parameters: dict[str, str] = {k: str(v) for k, v in parameters.items()}
        self._server = server
        self.ca_file = ca_file
        [(version, number, ssl)] = self.execute(
            "SELECT current_setting('server_version'), current_setting('server_version_num')::int,"
            " current_setting('ssl')::bool"
        )
        self.version: str = version.split()[0]
        self.major: int = number // 10000
        self.has_tls: bool = ssl

    def __repr__(self) -> str:
        return f"<Cluster {self.version} at {self.host}:{self.port}>"

    @property
    def own(self) -> TemporaryServer:
        """The server itself, with our accounts, to stop and start; skips where it is not ours."""
        if self._server is None:
            pytest.skip("needs a server of its own, not the one that PGREPL_TEST_DSN names")
        return self._server

    @property
    def host(self) -> str:
        return self._parameters.get("host", HOST)

    @property
    def port(self) -> int:
        return int(self._parameters.get("port", 5432))

    @property
    def socket_directory(self) -> Path | None:
        """The directory of its Unix socket, if it is known."""
        if self._server is not None:
            return self._server.socket_directory
        return Path(self.host) if self.host.startswith("/") else None

    def dsn(self, **keywords: str | int | None) -> str:
        """A keyword/value string: the superuser and database `postgres` unless `keywords` say else.

        A `user` of `PASSWORDS` brings its password along. None takes a keyword out.
        """
        parameters: dict[str, str | int | None] = {"dbname": "postgres", **self._parameters}
        user = keywords.get("user")
        if user is not None:
            parameters["password"] = PASSWORDS.get(str(user))
        parameters.update(keywords)
        return conninfo_string({k: str(v) for k, v in parameters.items() if v is not None})

    def connect(self, **keywords: str | int | None) -> psycopg.Connection[tuple[Any, ...]]:
        """A psycopg connection in autocommit mode; use it in a `with`."""
        return psycopg.connect(self.dsn(**keywords), autocommit=True)

    def execute(
        self,
        statement: str | sql.Composed,
        parameters: Sequence[object] | None = None,
        *,
        dbname: str = "postgres",
    ) -> list[tuple[Any, ...]]:
        """Run SQL as the superuser, each call a session of its own; returns the last rows.

        Several statements in one string are one transaction.
        """
        query = statement.encode() if isinstance(statement, str) else statement
        with self.connect(dbname=dbname) as connection:
            cursor = connection.execute(query, parameters)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def new_database(self) -> Iterator[Database]:
        """A database that is empty, and gone afterwards with all its slots."""
        database = Database(self, f"t{os.getpid()}_{next(_numbers)}")
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database.name)))
        try:
            yield database
        finally:
            database.drop()


class Database:
    """A database for one test: dropped with its logical slots, and with all that `slot()` named.

    Slots belong to the whole server, so that their names need the database's to be unique.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def __repr__(self) -> str:
        return f"<Database {self.name} of {self.cluster!r}>"

    def slot(self, stem: str = "slot") -> str:
        """A slot name that no other test uses."""
        return f"{self.name}_{stem}"

    def dsn(self, **keywords: str | int | None) -> str:
        return self.cluster.dsn(**{"dbname": self.name, **keywords})

    def connect(self, **keywords: str | int | None) -> psycopg.Connection[tuple[Any, ...]]:
        return self.cluster.connect(**{"dbname": self.name, **keywords})

    def execute(
        self, statement: str | sql.Composed, parameters: Sequence[object] | None = None
    ) -> list[tuple[Any, ...]]:
        return self.cluster.execute(statement, parameters, dbname=self.name)

    def drop(self) -> None:
        """End every session, then remove prepared transactions, slots and the database."""
        self._drop_slots()
        for (gid,) in self.execute(
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        ):
            self.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
        self.cluster.execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name))
        )

    def _drop_slots(self) -> None:
        deadline = time.monotonic() + 10
        while slots := self.cluster.execute(
            "SELECT slot_name, active_pid FROM pg_replication_slots"
            " WHERE database = %s OR starts_with(slot_name, %s)",
            [self.name, f"{self.name}_"],
        ):
            if time.monotonic() > deadline:
                raise RuntimeError(f"replication slots that cannot be dropped: {slots}")
            for name, pid in slots:
                if pid is not None:
                    self.cluster.execute("SELECT pg_terminate_backend(%s)", [pid])
                # It may still be held by a sender on its way out, or be a temporary one, now gone.
                with contextlib.suppress(
                    psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject
                ):
                    self.cluster.execute("SELECT pg_drop_replication_slot(%s)", [name])


class Clusters:
    """The servers of a test session: each is started when first asked for, and kept."""

    def __init__(self, certificates: CertificateSet) -> None:
        self._certificates = certificates
        self._running: dict[str, Cluster] = {}
        self._missing: dict[str, NoServer] = {}
        self._resources = contextlib.ExitStack()

    def get(self, name: str) -> Cluster:
        """The cluster of a name out of `versions.cluster_names()`.

        Raises:
            NoServer: there is none for that version.
        """
        if name in self._missing:
            raise self._missing[name]
        if name not in self._running:
            try:
                self._running[name] = self._open(name)
            except NoServer as error:
                self._missing[name] = error
                raise
        return self._running[name]

    def close(self) -> None:
        """Stop all that were started."""
        self._resources.close()
        self._running.clear()

    def _open(self, name: str) -> Cluster:
        if name == GIVEN:
            return Cluster(conninfo_to_dict(os.environ["PGREPL_TEST_DSN"]))
        installation = servers.find(name)
        if installation is None:
            return Cluster(self._resources.enter_context(_container(name)))
        server = throw_away_cluster(installation, self._certificates)
        self._resources.enter_context(server)
        parameters = {"host": server.host, "port": server.port, "user": "postgres"}
        ca_file = self._certificates.ca if installation.has_tls else None
        cluster = Cluster(parameters, server=server, ca_file=ca_file)
        _create_accounts(cluster)
        return cluster


def throw_away_cluster(
    installation: servers.Installation, certificates: CertificateSet
) -> TemporaryServer:
    """A server, not started yet, with TLS if it can and a pg_hba.conf line for each account."""
    # An autovacuum makes a session that decodes describe the tables again, whenever it comes.
    settings: dict[str, str | int | bool] = {"timezone": "GMT", "autovacuum": False}
    files: dict[str, bytes] = {}
    if installation.has_tls:
        settings |= _TLS_SETTINGS
        files = {
            "server.crt": certificates.server.certificate.read_bytes(),
            "server.key": certificates.server.key.read_bytes(),
            "ca.crt": certificates.ca.read_bytes(),
        }
    return TemporaryServer(
        installation.bin_directory,
        settings=settings,
        hba=_hba(installation.has_tls),
        files=files,
    )


def _hba(has_tls: bool) -> str:
    """Lines for logical and physical replication alike; the rest needs a password."""
    lines = [
        f"{kind} all,replication {user} {address} {method}"
        for user, method in _AUTHENTICATION.items()
        for kind, address in (("local", ""), ("host", f"{HOST}/32"))
    ]
    lines.append(f"hostnossl all,replication {_ONLY_PLAIN} {HOST}/32 trust")
    if has_tls:  # a build without TLS refuses the method cert
        lines.append(f"hostssl all,replication {_ONLY_TLS} {HOST}/32 trust")
        lines.append(f"hostssl all,replication {_ONLY_CERTIFICATE} {HOST}/32 cert")
    for user in (_ONLY_PLAIN, _ONLY_TLS, _ONLY_CERTIFICATE):
        lines.append(f"host all,replication {user} {HOST}/32 reject")
    lines.append(f"host all,replication all {HOST}/32 scram-sha-256")
    return "\n".join(lines) + "\n"


def _create_accounts(cluster: Cluster) -> None:
    users = [*_AUTHENTICATION, _ONLY_TLS, _ONLY_PLAIN, _ONLY_CERTIFICATE]
    with cluster.connect() as connection:
        for user in users:
            if user == "postgres":
                continue
            method = "md5" if user == "u_md5" else "scram-sha-256"
            connection.execute("SELECT set_config('password_encryption', %s, false)", [method])
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD {}").format(
                    sql.Identifier(user), sql.Literal(PASSWORDS.get(user))
                )
            )


@contextlib.contextmanager
def _container(major: str) -> Iterator[dict[str, str]]:
    """The last resort: a server in a container, if a Docker engine answers."""
    reason = ""
    with _foreign_code():
        try:
            module = importlib.import_module("testcontainers.core.container")
            container = module.DockerContainer(f"postgres:{major}").with_exposed_ports(5432)
            container.with_env("POSTGRES_HOST_AUTH_METHOD", "trust")
            container.with_command(
                "-c wal_level=logical -c max_wal_senders=20 -c max_replication_slots=20"
                " -c max_prepared_transactions=20 -c fsync=off"
            )
            container.start()
        except Exception as error:  # whatever an engine that is missing or has no network leads to
            reason = f"{type(error).__name__}: {error}"
    if reason:
        raise NoServer(
            f"no PostgreSQL {major}: not at PGREPL_TEST_BIN_{major}, nor in "
            f"/usr/lib/postgresql/{major}/bin, nor fetched by `python -m tests.support.servers`, "
            f"nor on the PATH, nor as a container ({reason})"
        )
    try:
        host, port = container.get_container_host_ip(), container.get_exposed_port(5432)
        parameters = {"host": host, "port": str(port), "user": "postgres"}
        _wait_until_it_accepts(conninfo_string(parameters))
        yield parameters
    finally:
        with _foreign_code():
            container.stop()


@contextlib.contextmanager
def _foreign_code() -> Iterator[None]:
    """Its warnings, and those of the sockets that it leaves to the collector, fail no test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()


def _wait_until_it_accepts(dsn: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
