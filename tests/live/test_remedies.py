"""What to do about it: errors of a server that lacks something, with the hint that says what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgrepl
from pgrepl.testing import TemporaryServer
from tests.live.streams import Connect, eventually
from tests.support.clusters import Cluster, Database

HBA = """
local all all trust
host all all 127.0.0.1/32 trust
"""


@pytest.fixture(scope="module")
def poor(programs: Path) -> Iterator[TemporaryServer]:
    """A server with one WAL sender, one slot, a low wal_level, and a pg_hba.conf for databases."""
    settings: dict[str, str | int] = {
        "wal_level": "replica",
        "max_wal_senders": 1,
        "max_replication_slots": 1,
    }
    with TemporaryServer(programs, settings=settings, hba=HBA) as server:
        yield server


def refused(
    connect: Connect, server: TemporaryServer, sqlstate: str, **keywords: Any
) -> pgrepl.ServerError:
    """The error of a session that is turned away, once the last one has left its WAL sender."""
    found: list[pgrepl.ServerError] = []

    def is_refused() -> bool:
        with pytest.raises(pgrepl.ServerError) as caught:
            connect(host=server.host, port=server.port, dbname="postgres", **keywords)
        found.append(caught.value)
        return caught.value.sqlstate == sqlstate

    eventually(is_refused, f"the session is turned away with {sqlstate}")
    assert found[-1].severity == "FATAL"
    return found[-1]


def test_what_a_server_lacks(connect: Connect, poor: TemporaryServer) -> None:
    who: dict[str, Any] = {
        "host": poor.host,
        "port": poor.port,
        "user": "postgres",
        "dbname": "postgres",
    }
    error = refused(connect, poor, "28000", user="postgres", replication="physical")
    assert "must let this role in to the database 'replication'" in str(error)
    assert error.message.startswith("no pg_hba.conf entry for replication connection")
    with psycopg.connect(**who, autocommit=True) as session:
        session.execute('DROP ROLE IF EXISTS "o""k"')
        session.execute('CREATE ROLE "o""k" LOGIN')
    error = refused(connect, poor, "42501", user='o"k')
    assert 'ALTER ROLE "o""k" REPLICATION;' in str(error)
    with psycopg.connect(**who, autocommit=True) as session:
        session.execute('ALTER ROLE "o""k" REPLICATION')
        session.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    error = refused(connect, poor, "42501", user='o"k')
    assert 'GRANT CONNECT ON DATABASE "postgres" TO "o""k";' in str(error)
    eventually(lambda: is_free(poor), "the WAL sender is free")
    with connect(**who) as connection:
        error = refused(connect, poor, "53300", user="postgres")
        assert "ALTER SYSTEM SET max_wal_senders" in str(error)
        assert error.retryable
        with pytest.raises(pgrepl.ServerError, match="ALTER SYSTEM SET wal_level = 'logical'"):
            connection.create_logical_slot("s")
        connection.create_physical_slot("t")
        with pytest.raises(pgrepl.ServerError, match=r"pg_drop_replication_slot\('") as caught:
            connection.create_physical_slot("u")
        assert caught.value.fields["routine"] == "ReplicationSlotCreate"
        assert (caught.value.hint or "").startswith("Free one or increase")
        connection.drop_slot("t")


def is_free(server: TemporaryServer) -> bool:
    with psycopg.connect(host=server.host, port=server.port, user="postgres") as session:
        found = session.execute("SELECT FROM pg_stat_activity WHERE backend_type = 'walsender'")
        return found.fetchall() == []


def test_a_lock_that_somebody_holds_may_be_free_later(
    database: Database, connect: Connect, cluster: Cluster
) -> None:
    """lock_timeout of a role ends what a catalogue's reader waits for."""
    with (
        database.connect() as holder,
        connect(database.dsn(options="-c lock_timeout=50")) as connection,
    ):
        holder.execute("CREATE TABLE t ()")
        holder.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(pgrepl.ServerError) as caught:
            connection.query("SELECT * FROM t")
        assert (caught.value.sqlstate, caught.value.retryable) == ("55P03", True)


def test_a_session_that_was_idle_for_too_long(
    database: Database, connect: Connect, cluster: Cluster
) -> None:
    if cluster.major < 14:
        pytest.skip("idle_session_timeout came with PostgreSQL 14")
    connection = connect(database.dsn(options="-c idle_session_timeout=50"))
    database.execute("SELECT pg_sleep(0.3)")
    with connection, pytest.raises(pgrepl.ServerError) as caught:
        connection.query("SELECT 1")
    assert (caught.value.sqlstate, caught.value.retryable) == ("57P05", True)
