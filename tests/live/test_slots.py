"""Replication slots made and dropped on real servers, and the names that they may have."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import pgrepl
from tests.live.streams import PATIENCE, Connect, create_slot, eventually, streaming
from tests.support.clusters import Cluster, Database


def slot_row(database: Database, name: str, columns: str) -> list[tuple[Any, ...]]:
    return database.execute(
        f"SELECT {columns} FROM pg_replication_slots WHERE slot_name = %s", [name]
    )


# Making


def test_logical_slot(database: Database, connect: Connect) -> None:
    name = database.slot()
    with connect(database.dsn()) as connection:
        slot = connection.create_logical_slot(name)
        assert slot == pgrepl.Slot(name, slot.consistent_point, None, "pgoutput")
        assert isinstance(slot.consistent_point, pgrepl.Lsn)
    [(position, *rest)] = slot_row(
        database, name, "confirmed_flush_lsn::text, plugin, slot_type, database, temporary"
    )
    assert slot.consistent_point == pgrepl.Lsn(position)
    assert rest == ["pgoutput", "logical", database.name, False]


def test_other_plugin(database: Database, connect: Connect) -> None:
    name = database.slot()
    with connect(database.dsn()) as connection:
        assert connection.create_logical_slot(name, "test_decoding").plugin == "test_decoding"
        assert slot_row(database, name, "plugin") == [("test_decoding",)]
        with pytest.raises(pgrepl.ServerError, match="no_such_plugin"):
            connection.create_logical_slot(database.slot("other"), "no_such_plugin")
        assert slot_row(database, database.slot("other"), "plugin") == []
        assert connection.identify_system().dbname == database.name


def test_temporary_slot_goes_with_its_connection(database: Database, connect: Connect) -> None:
    name = database.slot()
    with connect(database.dsn()) as connection:
        connection.create_logical_slot(name, temporary=True)
        assert slot_row(database, name, "temporary, active_pid") == [(True, connection.pid)]
    eventually(lambda: not slot_row(database, name, "temporary"), "the slot goes")


def test_two_phase_slot(database: Database, connect: Connect) -> None:
    plain, two_phase = database.slot("plain"), database.slot("two_phase")
    with connect(database.dsn()) as connection:
        if database.cluster.major < 15:
            with pytest.raises(pgrepl.UsageError, match="two-phase slots need PostgreSQL 15"):
                connection.create_logical_slot(two_phase, two_phase=True)
            assert slot_row(database, two_phase, "1") == []
            return
        connection.create_logical_slot(plain)
        connection.create_logical_slot(two_phase, two_phase=True)
    assert slot_row(database, plain, "two_phase") == [(False,)]
    assert slot_row(database, two_phase, "two_phase") == [(True,)]


def test_failover_slot(database: Database, connect: Connect) -> None:
    plain, failover = database.slot("plain"), database.slot("failover")
    with connect(database.dsn()) as connection:
        if database.cluster.major < 17:
            with pytest.raises(pgrepl.UsageError, match="failover slots need PostgreSQL 17"):
                connection.create_logical_slot(failover, failover=True)
            assert slot_row(database, failover, "1") == []
        else:
            connection.create_logical_slot(plain)
            connection.create_logical_slot(failover, failover=True, two_phase=True)
            assert slot_row(database, plain, "failover") == [(False,)]
            assert slot_row(database, failover, "failover, two_phase") == [(True, True)]
        assert connection.identify_system().dbname == database.name


def test_exported_snapshot(database: Database, connect: Connect) -> None:
    database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    with connect(database.dsn()) as connection:
        slot = connection.create_logical_slot(database.slot(), snapshot="export")
        assert slot.snapshot_name
        database.execute("INSERT INTO t VALUES (2)")
        with database.connect() as other:
            other.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute(f"SET TRANSACTION SNAPSHOT '{slot.snapshot_name}'")
            # It lives on in whoever took it, though not behind the next command.
            connection.identify_system()
            assert other.execute("SELECT a FROM t").fetchall() == [(1,)]
            other.execute("COMMIT")
            assert len(other.execute("SELECT a FROM t").fetchall()) == 2
            other.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            with pytest.raises(Exception, match="snapshot"):
                other.execute(f"SET TRANSACTION SNAPSHOT '{slot.snapshot_name}'")


def test_snapshot_for_the_connection_itself(database: Database, connect: Connect) -> None:
    database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    with connect(database.dsn()) as connection:
        with pytest.raises(pgrepl.ServerError, match="transaction"):
            connection.create_logical_slot(database.slot(), snapshot="use")
        connection.query("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")
        slot = connection.create_logical_slot(database.slot(), snapshot="use")
        assert slot.snapshot_name is None
        database.execute("INSERT INTO t VALUES (2)")
        [seen, _] = connection.query("SELECT a FROM t; COMMIT")
        assert seen.rows == [("1",)]
        [seen] = connection.query("SELECT a FROM t")
        assert len(seen.rows) == 2


def test_snapshot_that_there_is_no_such_thing(database: Database, connect: Connect) -> None:
    with connect(database.dsn()) as connection:
        with pytest.raises(pgrepl.UsageError, match="'nothing', 'export' or 'use'"):
            connection.create_logical_slot(database.slot(), snapshot="exported")  # type: ignore[arg-type]
        assert slot_row(database, database.slot(), "1") == []


def test_name_that_is_taken(database: Database, connect: Connect) -> None:
    with connect(database.dsn()) as connection:
        connection.create_logical_slot(database.slot())
        with pytest.raises(pgrepl.ServerError, match="already exists") as caught:
            connection.create_logical_slot(database.slot())
        assert caught.value.sqlstate == "42710"
        connection.drop_slot(database.slot())


def test_time_limit_while_a_transaction_is_open(database: Database, connect: Connect) -> None:
    name = database.slot()
    with connect(database.dsn()) as connection:
        with database.connect() as other:
            other.execute("BEGIN")
            other.execute("CREATE TABLE t (a int)")
            with pytest.raises(TimeoutError):
                connection.create_logical_slot(name, timeout=0.2)
            with pytest.raises(TimeoutError):
                connection.identify_system(timeout=0.2)
            other.execute("COMMIT")
        # The server went on with it, and its answer is nobody else's.
        assert connection.identify_system(timeout=PATIENCE).dbname == database.name
        assert slot_row(database, name, "plugin") == [("pgoutput",)]
        connection.drop_slot(name)


# Names


@pytest.mark.parametrize("name", ['a"b', '"', "", "a\0b", 's" LOGICAL pgoutput; DROP'])
def test_name_that_the_grammar_cannot_say(cluster: Cluster, connect: Connect, name: str) -> None:
    with connect(cluster.dsn()) as connection:
        with pytest.raises(pgrepl.UsageError, match="expected a name"):
            connection.create_logical_slot(name)
        with pytest.raises(pgrepl.UsageError, match="expected a name"):
            connection.create_logical_slot("fine", plugin=name)
        with pytest.raises(pgrepl.UsageError, match="expected a name"):
            connection.drop_slot(name)
        assert connection.identify_system().dbname == "postgres"


REFUSED = ("Upper", "a b", "a-b", "a'b", "a;DROP_REPLICATION_SLOT", "a\\b", "a,b", "é", "🐘", "a\n")


@pytest.mark.parametrize("name", REFUSED)
def test_name_that_the_server_refuses(cluster: Cluster, connect: Connect, name: str) -> None:
    with connect(cluster.dsn()) as connection:
        with pytest.raises(pgrepl.ServerError, match="invalid character") as caught:
            connection.create_logical_slot(name)
        assert caught.value.sqlstate == "42602"
        with pytest.raises(pgrepl.ServerError) as caught:
            connection.drop_slot(name)
        # Newer servers refuse a name that no slot can have here as well.
        assert caught.value.sqlstate in ("42704", "42602")
        assert connection.identify_system().dbname == "postgres"


def test_plugin_names_stay_one_word(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:
        for plugin in ("pgoutput x", "PGOUTPUT", "pgoutput (SNAPSHOT 'export')", "a'b"):
            with pytest.raises(pgrepl.ServerError) as caught:
                connection.create_logical_slot("fine", plugin=plugin, temporary=True)
            # There is no such library, or it is not among those that are allowed.
            assert caught.value.sqlstate in ("58P01", "42501")
            assert f'"{plugin}"' in caught.value.message
        assert connection.identify_system().dbname == "postgres"


def test_words_of_the_grammar_are_names_too(database: Database, connect: Connect) -> None:
    with connect(database.dsn()) as connection:
        for name in ("logical", "temporary", "create_replication_slot", "_", "0"):
            slot = connection.create_logical_slot(name, temporary=True)
            assert slot.name == name
            connection.drop_slot(name)


def test_longest_name(database: Database, connect: Connect) -> None:
    name = database.slot("x" * 63)[:63]
    with connect(database.dsn()) as connection:
        assert connection.create_logical_slot(name).name == name
        connection.drop_slot(name)


# Dropping


def test_drop(database: Database, connect: Connect) -> None:
    name = create_slot(database)
    with connect(database.dsn()) as connection:
        connection.drop_slot(name)
        assert slot_row(database, name, "1") == []
        with pytest.raises(pgrepl.SlotNotFound, match=name) as caught:
            connection.drop_slot(name)
        assert caught.value.sqlstate == "42704"
        with pytest.raises(pgrepl.SlotNotFound):
            connection.drop_slot(name, wait=True, timeout=PATIENCE)
        assert connection.identify_system().dbname == database.name


def test_drop_while_it_is_used(database: Database, connect: Connect) -> None:
    name = create_slot(database)
    with (
        streaming(connect, database, name) as holder,
        connect(database.dsn()) as connection,
    ):
        with pytest.raises(pgrepl.SlotInUse, match=name) as caught:
            connection.drop_slot(name)
        assert (caught.value.sqlstate, caught.value.pid) == ("55006", holder.pid)
        assert connection.identify_system().dbname == database.name
    assert slot_row(database, name, "plugin") == [("pgoutput",)]


def test_drop_waits_for_whoever_uses_it(database: Database, connect: Connect) -> None:
    name = create_slot(database)
    dropped = threading.Event()

    def drop() -> None:
        connection.drop_slot(name, wait=True, timeout=PATIENCE)
        dropped.set()

    with connect(database.dsn()) as connection, streaming(connect, database, name) as holder:
        dropping = threading.Thread(target=drop)
        dropping.start()
        eventually(
            lambda: database.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s"
                " AND wait_event = 'ReplicationSlotDrop'",
                [connection.pid],
            ),
            "the server waits for the slot",
        )
        assert not dropped.is_set()
        holder.disconnect()
        dropping.join(PATIENCE)
        assert dropped.is_set()
        assert slot_row(database, name, "1") == []


def test_drop_that_waits_can_be_left(database: Database, connect: Connect) -> None:
    name = create_slot(database)
    with connect(database.dsn()) as connection:
        with streaming(connect, database, name):
            with pytest.raises(TimeoutError):
                connection.drop_slot(name, wait=True, timeout=0.2)
            assert slot_row(database, name, "active") == [(True,)]
        # The server goes on with it as soon as it can.
        assert connection.identify_system(timeout=PATIENCE).dbname == database.name
        assert slot_row(database, name, "active") == []
