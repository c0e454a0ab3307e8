"""cancel(): what the server is doing for a connection ends, and the connection goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

import pgrepl
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    create_slot,
    eventually,
    meanwhile,
    receive_transactions,
    start_pgoutput,
    wait_until_free,
)
from tests.support.clusters import Cluster, Database
from tests.support.flavours import BLOCKING, FEW_FLAVOURS

pytestmark = pytest.mark.flavours(*FEW_FLAVOURS)

SLEEP = "SELECT pg_sleep(600)"


def is_asleep(cluster: Cluster, connection: pgrepl.Connection | pgrepl.AsyncConnection) -> bool:
    return bool(
        cluster.execute(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'",
            [connection.pid],
        )
    )


def fall_asleep(cluster: Cluster, connection: pgrepl.Connection) -> None:
    """Cut a query off, which goes on at the server."""
    with pytest.raises(TimeoutError):
        connection.query(SLEEP, timeout=0.1)
    eventually(lambda: is_asleep(cluster, connection), "the query runs")


def assert_usable(connection: pgrepl.Connection) -> None:
    assert connection.query("SELECT 1", timeout=PATIENCE)[0].rows == [("1",)]


# A connection belongs to one loop, and so to one thread: test_async_cancel.py has another task.
@pytest.mark.flavours(*BLOCKING)
def test_a_query_of_another_thread(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:

        def sleep() -> pgrepl.ServerError:
            with pytest.raises(pgrepl.ServerError) as caught:
                connection.query(SLEEP, timeout=PATIENCE)
            return caught.value

        with meanwhile(sleep) as sleeping:
            eventually(lambda: is_asleep(cluster, connection), "the query runs")
            connection.cancel()
        assert sleeping.result().sqlstate == "57014"
        assert_usable(connection)


def test_a_query_that_was_cut_off(cluster: Cluster, connect: Connect) -> None:
    """Without it the next command would wait for the end of this one."""
    with connect(cluster.dsn()) as connection:
        fall_asleep(cluster, connection)
        connection.cancel()
        assert_usable(connection)
        assert not is_asleep(cluster, connection)


def test_nothing_to_cancel(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:
        for _ in range(3):
            connection.cancel()
        # It may hit what comes next, if that comes too early.
        eventually(lambda: comes_through(connection), "a query comes through")


def comes_through(connection: pgrepl.Connection) -> bool:
    try:
        assert_usable(connection)
    except pgrepl.ServerError as error:
        assert error.sqlstate == "57014"
        return False
    return True


@pytest.mark.parametrize("has_begun", [False, True], ids=["at once", "after some changes"])
def test_a_stream(database: Database, connect: Connect, has_begun: bool) -> None:
    """It ends with 57014, and the session takes commands again."""
    database.execute(TABLE)
    slot = create_slot(database)
    with connect(database.dsn()) as connection:
        start_pgoutput(connection, slot)
        if has_begun:
            database.execute("INSERT INTO item VALUES (1, 'one')")
            receive_transactions(connection, 1)
        connection.cancel()
        with pytest.raises(pgrepl.ServerError) as caught:
            while connection.receive_wal_message(timeout=PATIENCE) is not None:
                pass
        assert caught.value.sqlstate == "57014"
        assert not connection.closed
        assert_usable(connection)
        wait_until_free(database, slot)


@pytest.mark.parametrize("replication", ["database", "physical"])
def test_a_physical_stream(own_cluster: Cluster, connect: Connect, replication: str) -> None:
    with connect(own_cluster.dsn(), replication=replication) as connection:
        position = connection.identify_system().xlogpos
        connection.start_streaming(f"START_REPLICATION PHYSICAL {position}")
        connection.cancel(timeout=PATIENCE)
        with pytest.raises(pgrepl.ServerError) as caught:
            while connection.receive_wal_message(timeout=PATIENCE) is not None:
                pass
        assert caught.value.sqlstate == "57014"
        assert connection.identify_system(timeout=PATIENCE).dbname == (
            None if replication == "physical" else "postgres"
        )


@pytest.mark.parametrize(("negotiation", "version"), [("postgres", "3.0"), ("direct", "3.2")])
def test_by_tls_where_there_is_tls(
    tls_cluster: Cluster, connect: Connect, negotiation: str, version: str
) -> None:
    if negotiation == "direct" and tls_cluster.major < 17:
        pytest.skip("needs PostgreSQL 17, which has sslnegotiation=direct")
    dsn = tls_cluster.dsn(sslmode="verify-full", sslrootcert=str(tls_cluster.ca_file))
    keywords = {"sslnegotiation": negotiation, "max_protocol_version": version}
    with connect(dsn, host="localhost", hostaddr=tls_cluster.host, **keywords) as connection:
        fall_asleep(tls_cluster, connection)
        connection.cancel()
        assert_usable(connection)


def test_where_the_connection_was_made(own_cluster: Cluster, connect: Connect) -> None:
    """Of several hosts it is the one that was reached."""
    nobody = Path("/nowhere")
    hosts = f"{nobody},{own_cluster.host},{nobody}"
    with connect(own_cluster.dsn(user="u_trust"), host=hosts) as connection:
        fall_asleep(own_cluster, connection)
        connection.cancel()
        assert_usable(connection)


def test_by_a_unix_socket(own_cluster: Cluster, connect: Connect) -> None:
    folder = own_cluster.own.socket_directory
    with connect(own_cluster.dsn(user="u_trust"), host=folder) as connection:
        fall_asleep(own_cluster, connection)
        connection.cancel()
        assert_usable(connection)


def test_with_the_longer_key_of_protocol_3_2(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn(), max_protocol_version="3.2") as connection:
        fall_asleep(cluster, connection)
        connection.cancel()
        assert_usable(connection)


def test_a_closed_connection(cluster: Cluster, connect: Connect) -> None:
    """The server has nothing to cancel any more, and nobody is told."""
    connection = connect(cluster.dsn())
    connection.close()
    connection.cancel()
    with connect(cluster.dsn()) as another:
        assert another.query("SELECT 1")[0].rows == [("1",)]
