"""The test servers and their databases are what they say, by the word of psycopg."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import psycopg
import pytest

from pgrepl.testing import TemporaryServer
from tests.live.streams import eventually
from tests.support.certificates import CertificateSet
from tests.support.clusters import PASSWORDS, Cluster, Database
from tests.support.proxy import Proxy, Slicing, coalesce, one_byte, random_pieces

# What libpq must see asked for, in the words of its require_auth.
METHODS = {
    "u_trust": "none",
    "u_password": "password",
    "u_md5": "md5",
    "u_scram": "scram-sha-256",
}


@pytest.fixture
def own(cluster: Cluster) -> TemporaryServer:
    """The server behind `cluster`, where it is one of ours."""
    return cluster.own


@pytest.mark.usefixtures("own")
class TestCluster:
    def test_is_the_version_that_was_asked_for(
        self, cluster: Cluster, request: pytest.FixtureRequest
    ) -> None:
        assert str(cluster.major) == request.node.callspec.params["cluster"]
        assert cluster.version == cluster.own.version

    def test_is_set_up_for_logical_replication(self, cluster: Cluster) -> None:
        names = ["wal_level", "max_wal_senders", "max_replication_slots", "fsync"]
        values = [cluster.execute(f"SHOW {name}")[0][0] for name in names]
        assert values == ["logical", "20", "20", "off"]

    def test_encoding_and_locale(self, cluster: Cluster) -> None:
        rows = cluster.execute(
            "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database"
            " WHERE datname = 'postgres'"
        )
        assert rows == [("UTF8", "C")]

    def test_does_not_run_as_root(self, cluster: Cluster) -> None:
        # PostgreSQL runs on nothing but a data directory of the user that it runs as.
        assert cluster.own.data_directory.stat().st_uid != 0

    def test_does_not_hear_a_terminals_interrupt(self, cluster: Cluster) -> None:
        assert os.getpgid(cluster.own.pid) != os.getpgid(0)
        assert os.getsid(cluster.own.pid) != os.getsid(0)

    def test_execute_runs_several_statements_and_returns_the_last_rows(
        self, database: Database
    ) -> None:
        rows = database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (7); TABLE t")
        assert rows == [(7,)]
        assert database.execute("INSERT INTO t VALUES (%s)", [8]) == []
        assert database.execute("SELECT a FROM t WHERE a > %s", [7]) == [(8,)]


@pytest.mark.usefixtures("own")
class TestAuthentication:
    @pytest.mark.parametrize("replication", ["", "database", "true"])
    @pytest.mark.parametrize("by", ["tcp", "socket"])
    @pytest.mark.parametrize("user", METHODS)
    def test_each_method_is_asked_for(
        self, cluster: Cluster, user: str, by: str, replication: str
    ) -> None:
        host = cluster.host if by == "tcp" else str(cluster.own.socket_directory)
        keywords: dict[str, Any] = {"user": user, "require_auth": METHODS[user], "host": host}
        if replication:
            keywords["replication"] = replication
        with cluster.connect(**keywords) as connection:
            if replication:
                row = connection.execute("IDENTIFY_SYSTEM").fetchone()
                assert row is not None
                assert row[3] == ("postgres" if replication == "database" else None)
            else:
                assert connection.execute("SELECT session_user").fetchone() == (user,)

    @pytest.mark.parametrize("user", PASSWORDS)
    def test_another_password_is_refused(self, cluster: Cluster, user: str) -> None:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            cluster.connect(user=user, password=PASSWORDS[user].replace("ä", "a"))

    def test_passwords_are_stored_as_their_method_needs(self, cluster: Cluster) -> None:
        stored = dict(cluster.execute("SELECT rolname, rolpassword FROM pg_authid"))
        assert stored["u_md5"].startswith("md5")
        assert stored["u_scram"].startswith("SCRAM-SHA-256$")

    def test_a_rejecting_line_rejects(self, cluster: Cluster) -> None:
        with pytest.raises(psycopg.OperationalError, match="rejects connection"):
            cluster.connect(user="u_reject")

    def test_a_role_that_a_test_makes_needs_its_password(self, cluster: Cluster) -> None:
        cluster.execute("CREATE ROLE passer_by LOGIN PASSWORD 'open sesame'")
        try:
            with cluster.connect(user="passer_by", password="open sesame"):
                pass
            with pytest.raises(psycopg.OperationalError, match="no password supplied"):
                cluster.connect(user="passer_by")
        finally:
            cluster.execute("DROP ROLE passer_by")


@pytest.mark.usefixtures("own")
class TestTls:
    @pytest.fixture(autouse=True)
    def _cluster_with_tls(self, cluster: Cluster) -> None:
        if not cluster.has_tls:
            pytest.skip(f"PostgreSQL {cluster.version} has no TLS here")

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    def test_certificate_is_for_this_host(self, cluster: Cluster, host: str) -> None:
        dsn: dict[str, Any] = {"host": host, "sslrootcert": str(cluster.ca_file)}
        with cluster.connect(sslmode="verify-full", **dsn) as connection:
            row = connection.execute(
                "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            ).fetchone()
        assert row == (True,)

    def test_certificate_is_of_our_authority(
        self, cluster: Cluster, certificates: CertificateSet
    ) -> None:
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            cluster.connect(sslmode="verify-ca", sslrootcert=str(certificates.other_ca))

    def test_channel_binding(self, cluster: Cluster) -> None:
        with cluster.connect(user="u_scram", sslmode="require", channel_binding="require"):
            pass

    @pytest.mark.parametrize(("user", "mode"), [("u_ssl", "require"), ("u_nossl", "disable")])
    def test_users_of_one_kind_of_transport(self, cluster: Cluster, user: str, mode: str) -> None:
        with cluster.connect(user=user, sslmode=mode):
            pass
        other = "disable" if mode == "require" else "require"
        with pytest.raises(psycopg.OperationalError, match="rejects connection"):
            cluster.connect(user=user, sslmode=other)

    def test_client_certificate(self, cluster: Cluster, certificates: CertificateSet) -> None:
        files = {
            "sslcert": str(certificates.client.certificate),
            "sslkey": str(certificates.client.key),
        }
        with cluster.connect(user="u_cert", sslmode="require", **files):
            pass
        with pytest.raises(psycopg.OperationalError, match="certificate"):
            cluster.connect(user="u_cert", sslmode="require")


def test_build_without_tls_refuses_it(cluster: Cluster) -> None:
    if cluster.has_tls:
        pytest.skip(f"PostgreSQL {cluster.version} has TLS")
    with pytest.raises(psycopg.OperationalError, match="server does not support SSL"):
        cluster.connect(sslmode="require")


class TestDatabase:
    @pytest.mark.parametrize("plugin", ["pgoutput", "test_decoding"])
    def test_logical_decoding_works(self, database: Database, plugin: str) -> None:
        slot = database.slot()
        database.execute("CREATE TABLE t (a int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t")
        database.execute("SELECT pg_create_logical_replication_slot(%s, %s)", [slot, plugin])
        database.execute("INSERT INTO t VALUES (1)")
        options = "'proto_version', '1', 'publication_names', 'p'" if plugin == "pgoutput" else ""
        changes = database.execute(
            "SELECT data FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL"
            + (f", {options})" if options else ")"),
            [slot],
        )
        texts = [bytes(data) for (data,) in changes]
        first = [t[:1] for t in texts] if plugin == "pgoutput" else [t.split()[0] for t in texts]
        assert first in ([b"B", b"R", b"I", b"C"], [b"BEGIN", b"table", b"COMMIT"])

    def test_goes_with_all_that_could_hold_it(self, cluster: Cluster) -> None:
        with contextlib.ExitStack() as sessions:
            with cluster.new_database() as database:
                streaming = database.connect(replication="database")
                sessions.callback(streaming.close)
                create = "SELECT pg_create_{}_replication_slot({})"
                database.execute(create.format("physical", f"'{database.slot()}'"))
                database.execute(create.format("logical", "'any_name', 'test_decoding'"))
                idle = database.connect()
                sessions.callback(idle.close)
                idle.execute("CREATE TABLE t (a int)")
                database.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left'")
                streaming.pgconn.send_query(b"START_REPLICATION SLOT any_name LOGICAL 0/0")
                streaming.pgconn.flush()
                holding = "SELECT count(*) FROM pg_replication_slots WHERE active"
                eventually(lambda: database.execute(holding) == [(1,)], "the slot is in use")
            for left in (
                f"SELECT 1 FROM pg_database WHERE datname = '{database.name}'",
                "SELECT slot_name FROM pg_replication_slots",
                "SELECT gid FROM pg_prepared_xacts",
            ):
                assert cluster.execute(left) == []

    def test_names_differ(self, cluster: Cluster) -> None:
        with cluster.new_database() as one, cluster.new_database() as other:
            assert one.name != other.name
            assert one.slot() != other.slot() != other.slot("b")
            assert one.execute("SELECT current_database()") == [(one.name,)]


@pytest.mark.parametrize(
    "slicing",
    [one_byte(), random_pieces(seed=5), coalesce(4096)],
    ids=["one byte", "random", "coalesce"],
)
def test_a_session_through_the_proxy(database: Database, slicing: Slicing) -> None:
    with (
        Proxy((database.cluster.host, database.cluster.port), slicing=slicing) as proxy,
        database.connect(host=proxy.host, port=proxy.port) as connection,
    ):
        rows = connection.execute("SELECT i, repeat('x', i) FROM generate_series(1, 40) i")
        assert rows.fetchall() == [(i, "x" * i) for i in range(1, 41)]
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
