"""Making a connection to a real server: where the parameters come from, and what it then is."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

import pgrepl
from pgrepl.testing import TemporaryServer
from tests.live.streams import Connect, eventually
from tests.support.clusters import PASSWORDS, Cluster, Database
from tests.support.flavours import DRIVERS
from tests.support.inside import wire_of

pytestmark = pytest.mark.flavours(*DRIVERS)

WHO = "SELECT current_user, current_database(), inet_server_port()"


def who(connection: pgrepl.Connection) -> tuple[str | None, ...]:
    [result] = connection.query(WHO)
    [row] = result.rows
    return row


def server_process(cluster: Cluster, connection: pgrepl.Connection) -> list[tuple[Any, ...]]:
    return cluster.execute(
        "SELECT backend_type, application_name, datname FROM pg_stat_activity WHERE pid = %s",
        [connection.pid],
    )


# Where the parameters come from


def test_uri(own_cluster: Cluster, connect: Connect) -> None:
    server = own_cluster.own
    password = quote(PASSWORDS["u_scram"], safe="")
    uri = f"postgresql://u_scram:{password}@{server.host}:{server.port}/postgres"
    with connect(f"{uri}?application_name=na%C3%AFve%26co") as connection:
        assert who(connection) == ("u_scram", "postgres", str(server.port))
        # The server keeps ASCII alone in this name.
        [result] = connection.query("SHOW application_name")
        [(name,)] = result.rows
        assert name is not None
        assert name.startswith("na")
        assert name.endswith("ve&co")


def test_uri_with_a_socket(own_cluster: Cluster, connect: Connect) -> None:
    server = own_cluster.own
    folder = quote(str(server.socket_directory), safe="")
    with connect(f"postgres://u_trust@{folder}:{server.port}/postgres") as connection:
        assert who(connection) == ("u_trust", "postgres", None)


def test_keywords_and_values(own_cluster: Cluster, connect: Connect) -> None:
    with connect(own_cluster.dsn(user="u_md5", application_name="it's \\ me")) as made:
        assert who(made) == ("u_md5", "postgres", str(own_cluster.port))
        assert made.show("application_name") == "it's \\ me"


def test_keyword_arguments(own_cluster: Cluster, connect: Connect) -> None:
    server = own_cluster.own
    with connect(
        host=server.host,
        port=server.port,
        user="u_password",
        password=PASSWORDS["u_password"],
        dbname="template1",
        sslmode="prefer",
        connect_timeout=30,
    ) as connection:
        assert who(connection) == ("u_password", "template1", str(server.port))


def test_variables(own_cluster: Cluster, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    server = own_cluster.own
    monkeypatch.setenv("PGHOST", server.host)
    monkeypatch.setenv("PGPORT", str(server.port))
    monkeypatch.setenv("PGUSER", "u_scram")
    monkeypatch.setenv("PGPASSWORD", PASSWORDS["u_scram"])
    monkeypatch.setenv("PGDATABASE", "template1")
    monkeypatch.setenv("PGSSLMODE", "disable")
    with connect() as connection:
        assert who(connection) == ("u_scram", "template1", str(server.port))
        assert not own_cluster.execute(
            "SELECT 1 FROM pg_stat_ssl WHERE ssl AND pid = %s", [connection.pid]
        )
    monkeypatch.setenv("PGSSLMODE", "verify-nothing")
    with pytest.raises(pgrepl.UsageError, match="expected sslmode"):
        connect()


def test_arguments_before_conninfo_before_variables(
    own_cluster: Cluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_cluster.own
    for name, value in {"HOST": "/nowhere", "PORT": "1", "USER": "u_reject"}.items():
        monkeypatch.setenv(f"PG{name}", value)
    monkeypatch.setenv("PGDATABASE", "no_such_database")
    monkeypatch.setenv("PGPASSWORD", "wrong")
    conninfo = f"host={server.host} port={server.port} user=u_trust dbname=template1"
    with connect(conninfo) as connection:
        assert who(connection) == ("u_trust", "template1", str(server.port))
    with connect(
        conninfo, user="u_scram", password=PASSWORDS["u_scram"], dbname="postgres", host=None
    ) as connection:
        assert who(connection) == ("u_scram", "postgres", str(server.port))


def test_the_database_is_the_users_by_default(database: Database, connect: Connect) -> None:
    name = database.name
    database.execute(f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'its own'")
    try:
        server = database.cluster.own
        with connect(host=server.host, port=server.port, user=name, password="its own") as made:
            assert who(made) == (name, name, str(server.port))
    finally:
        database.execute(f"DROP ROLE {name}")


def test_options_of_the_server(cluster: Cluster, connect: Connect) -> None:
    with connect(
        cluster.dsn(), options=r"-c wal_sender_timeout=7s -c search_path=a,\ b"
    ) as connection:
        assert connection.show("wal_sender_timeout") == "7s"
        assert connection.show("search_path") == "a, b"


# Ways to the server


def test_unix_socket(own_cluster: Cluster, connect: Connect) -> None:
    folder = own_cluster.own.socket_directory
    with connect(own_cluster.dsn(user="u_trust"), host=folder) as connection:
        assert who(connection) == ("u_trust", "postgres", None)
        assert connection.identify_system().dbname == "postgres"


def account_of(server: TemporaryServer) -> str:
    """The user that the server runs as."""
    return server.data_directory.owner()


def test_requirepeer(own_cluster: Cluster, connect: Connect) -> None:
    server = own_cluster.own
    socket_of_it = {"host": server.socket_directory, "port": server.port, "user": "u_trust"}
    with connect(**socket_of_it, dbname="postgres", requirepeer=account_of(server)) as connection:
        assert who(connection) == ("u_trust", "postgres", None)
    with pytest.raises(pgrepl.AuthenticationError) as caught:
        connect(**socket_of_it, requirepeer="somebody")
    assert "expected a server that runs as the user 'somebody'" in str(caught.value)
    assert f"got one that runs as {account_of(server)}" in str(caught.value)
    # As in libpq, it says nothing about other ways.
    with connect(own_cluster.dsn(user="u_trust"), requirepeer="somebody") as connection:
        assert not connection.closed


def test_options_of_tcp(cluster: Cluster, connect: Connect) -> None:
    with (
        connect(
            cluster.dsn(),
            keepalives_idle=101,
            keepalives_interval=11,
            keepalives_count=7,
            tcp_user_timeout=23_000,
        ) as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as same,
    ):
        assert same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for option, value in (
            (socket.TCP_NODELAY, 1),
            (socket.TCP_KEEPIDLE, 101),
            (socket.TCP_KEEPINTVL, 11),
            (socket.TCP_KEEPCNT, 7),
            (socket.TCP_USER_TIMEOUT, 23_000),
        ):
            assert same.getsockopt(socket.IPPROTO_TCP, option) == value
    with (
        connect(cluster.dsn(), keepalives=0, keepalives_idle=101) as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as same,
    ):
        assert not same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_protocol_versions(cluster: Cluster, connect: Connect) -> None:
    """3.2, which brings longer keys to cancel with, is for those who ask for it and have 18."""
    with connect(cluster.dsn()) as connection:
        assert len(wire_of(connection).server.cancel_key) == 4
    speaks_3_2 = cluster.major >= 18
    with connect(cluster.dsn(), max_protocol_version="3.2") as connection:
        assert len(wire_of(connection).server.cancel_key) == (32 if speaks_3_2 else 4)
        assert wire_of(connection).server.protocol_version == (0x30002 if speaks_3_2 else 0x30000)
        assert connection.identify_system().dbname == "postgres"
    newest = {"min_protocol_version": "3.2", "max_protocol_version": "latest"}
    if speaks_3_2:
        connect(cluster.dsn(), **newest).close()
    else:
        with pytest.raises(pgrepl.ProtocolError, match="min_protocol_version"):
            connect(cluster.dsn(), **newest)


def test_physical_connection(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn(), replication="physical") as connection:
        identity = connection.identify_system()
        assert identity.dbname is None
        assert connection.show("wal_level") == cluster.execute("SHOW wal_level")[0][0]
        with pytest.raises(pgrepl.ServerError) as caught:
            connection.query("SELECT 1")
        assert caught.value.sqlstate == "0A000"
        assert connection.identify_system().systemid == identity.systemid
    # Sent, for the sake of proxies, and nothing to the server.
    with connect(cluster.dsn(dbname="nowhere"), replication="physical") as connection:
        assert connection.identify_system().dbname is None


def test_other_kinds_of_replication_are_refused(cluster: Cluster, connect: Connect) -> None:
    with pytest.raises(pgrepl.UsageError, match="'database' or 'physical'"):
        connect(cluster.dsn(), replication="logical")


def test_nothing_listens_there(connect: Connect, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(pgrepl.ConnectionFailed, match=f"127.0.0.1:{port}: .*refused"):
        connect(host="127.0.0.1", port=port, user="somebody")
    with pytest.raises(pgrepl.ConnectionFailed, match=r"\.s\.PGSQL\.5432.*No such file"):
        connect(host=tmp_path, user="somebody")


def test_a_server_that_says_nothing(connect: Connect) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(pgrepl.ConnectionFailed, match="connect_timeout, 1"),
    ):
        connect(host="127.0.0.1", port=silent.getsockname()[1], user="u", connect_timeout=1)


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """A port where connecting gets no answer at all, as behind a firewall that drops."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_network_that_drops_everything(connect: Connect) -> None:
    with (
        full_backlog() as port,
        pytest.raises(
            pgrepl.ConnectionFailed,
            match=f"no connection to 127.0.0.1:{port} within connect_timeout",
        ),
    ):
        connect(host="127.0.0.1", port=port, user="u", connect_timeout=1)


def test_no_such_database(cluster: Cluster, connect: Connect) -> None:
    with pytest.raises(pgrepl.ServerError, match="no_such_database") as caught:
        connect(cluster.dsn(dbname="no_such_database"))
    assert caught.value.sqlstate == "3D000"
    assert caught.value.severity == "FATAL"


def test_role_without_replication(database: Database, connect: Connect) -> None:
    role = database.name
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret word'")
    try:
        with pytest.raises(pgrepl.ServerError, match="(?i)replication") as caught:
            connect(database.dsn(user=role, password="secret word"))
        assert caught.value.sqlstate == "42501"
    finally:
        database.execute(f"DROP ROLE {role}")


def test_too_many_connections(cluster: Cluster, connect: Connect) -> None:
    [(limit,)] = cluster.execute("SELECT current_setting('max_wal_senders')::int")
    with contextlib.ExitStack() as stack, pytest.raises(pgrepl.ServerError) as caught:
        for _ in range(limit + 1):
            stack.enter_context(connect(cluster.dsn()))
    assert caught.value.sqlstate == "53300"


# What the session is


def test_settings_that_give_text_its_form(database: Database, connect: Connect) -> None:
    wanted = {
        "client_encoding": ("LATIN1", "UTF8"),
        "DateStyle": ("German, DMY", "ISO"),
        "IntervalStyle": ("iso_8601", "postgres"),
        "extra_float_digits": ("-5", "3"),
        "bytea_output": ("escape", "hex"),
    }
    for name, (otherwise, _) in wanted.items():
        database.execute(f"ALTER DATABASE \"{database.name}\" SET {name} = '{otherwise}'")
    with psycopg.connect(database.dsn()) as other:
        assert other.execute("SHOW bytea_output").fetchone() == ("escape",)
    with connect(database.dsn()) as connection:
        for name, (_, value) in wanted.items():
            assert connection.show(name).split(",")[0] == value
        [result] = connection.query(
            r"SELECT 'é€', date '2024-03-01', interval '1 year 2 days', 0.1::float8 + 0.2::float8,"
            r" '\x00ff'::bytea"
        )
        assert result.rows == [
            ("é€", "2024-03-01", "1 year 2 days", "0.30000000000000004", r"\x00ff")
        ]


def test_what_the_server_tells_of_itself(database: Database, connect: Connect) -> None:
    cluster = database.cluster
    with connect(database.dsn(application_name="the consumer")) as connection:
        [(number, version)] = cluster.execute(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version')"
        )
        assert connection.server_version == number
        assert connection.parameters["server_version"] == version
        assert connection.parameters["client_encoding"] == "UTF8"
        with pytest.raises(TypeError):
            connection.parameters["client_encoding"] = "LATIN1"  # type: ignore[index]
        assert server_process(cluster, connection) == [("walsender", "the consumer", database.name)]
        assert connection.query("SELECT pg_backend_pid()")[0].rows == [(str(connection.pid),)]


def test_application_name_by_default(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:
        assert server_process(cluster, connection)[0][:2] == ("walsender", "pgrepl")


def test_parameters_follow_the_session(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:
        seen = connection.parameters
        connection.query("SET TimeZone = 'Asia/Kathmandu'; SET application_name = 'renamed'")
        assert connection.parameters["TimeZone"] == "Asia/Kathmandu"
        assert seen["application_name"] == "renamed"


def test_disconnect_ends_the_session(cluster: Cluster, connect: Connect) -> None:
    connection = connect(cluster.dsn())
    assert not connection.closed
    assert connection.fileno() >= 0
    connection.disconnect()
    assert connection.closed
    assert connection.fileno() == -1
    eventually(lambda: not server_process(cluster, connection), "the server process ends")
    connection.disconnect()
    connection.close()
    for use in (connection.identify_system, connection.receive_wal_message):
        with pytest.raises(pgrepl.UsageError, match="closed"):
            use()
    with pytest.raises(pgrepl.UsageError, match="closed"):
        connection.send_standby_status(0, 0, 0)


def test_leaving_the_context_ends_the_session(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:
        assert server_process(cluster, connection)
    assert connection.closed
    eventually(lambda: not server_process(cluster, connection), "the server process ends")
    error = RuntimeError("the body's own")
    with pytest.raises(RuntimeError) as caught, connect(cluster.dsn()) as connection:
        raise error
    assert caught.value is error
    assert connection.closed


def test_session_ended_by_an_administrator(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:
        cluster.execute("SELECT pg_terminate_backend(%s)", [connection.pid])
        with pytest.raises(pgrepl.ServerShutdown) as caught:
            connection.query("SELECT 1")
        assert caught.value.sqlstate == "57P01"
        assert connection.closed
