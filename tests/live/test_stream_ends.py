"""How a stream ends: stopped from this side, by an error, with its session, with its server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import pgrepl
from pgrepl.testing import TemporaryServer
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    confirmed,
    create_slot,
    eventually,
    is_data,
    meanwhile,
    receive,
    receive_data,
    receive_transactions,
    report,
    start_pgoutput,
    streaming,
    wait_until_free,
)
from tests.support.clusters import Database
from tests.support.flavours import FEW_FLAVOURS
from tests.support.proxy import Proxy

pytestmark = pytest.mark.flavours(*FEW_FLAVOURS)

BIG = "INSERT INTO item SELECT i, 'some text' FROM generate_series(1, 100000) i"


@pytest.fixture
def stoppable(database: Database) -> Iterator[TemporaryServer]:
    """The database's server, which a test may stop: it runs again afterwards."""
    server = database.cluster.own
    yield server
    server.start()


def next_command_works(connection: pgrepl.Connection) -> bool:
    return connection.query("SELECT 'next'", timeout=PATIENCE)[0].rows == [("next",)]


# Stopped from this side


def test_stop_in_the_middle_of_a_big_transaction(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute(BIG)
    with streaming(connect, database, slot) as connection:
        receive_data(connection)
        results = connection.stop_streaming(timeout=PATIENCE)
        assert [result.tag for result in results] == ["COPY 0", "START_REPLICATION"]
        assert next_command_works(connection)
    # What was thrown away was not confirmed, and comes again.
    with connect(database.dsn()) as connection:
        wait_until_free(database, slot)
        start_pgoutput(connection, slot)
        assert len(receive_transactions(connection, 1)) == 100_003


def test_stop_goes_on_after_a_time_limit(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute(BIG)
    with streaming(connect, database, slot) as connection:
        receive_data(connection)
        with pytest.raises(TimeoutError):
            connection.stop_streaming(timeout=0)
        with pytest.raises(pgrepl.UsageError, match="stream"):
            connection.receive_wal_message(timeout=0)
        results = connection.stop_streaming(timeout=PATIENCE)
        assert [result.tag for result in results] == ["COPY 0", "START_REPLICATION"]
        assert next_command_works(connection)


def test_command_goes_on_with_a_stop(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute(BIG)
    with streaming(connect, database, slot) as connection:
        receive_data(connection)
        with pytest.raises(TimeoutError):
            connection.stop_streaming(timeout=0)
        assert next_command_works(connection)
        with pytest.raises(pgrepl.UsageError, match="open a new connection"):
            start_pgoutput(connection, slot)
        assert next_command_works(connection)


def test_stop_of_an_idle_stream(database: Database, connect: Connect) -> None:
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        assert len(connection.stop_streaming(timeout=PATIENCE)) == 2
        for call in (connection.stop_streaming, connection.receive_wal_messages):
            with pytest.raises(pgrepl.UsageError, match=r"start_streaming\(\)"):
                call()
        assert next_command_works(connection)


def test_second_logical_stream_is_refused(database: Database, connect: Connect) -> None:
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        with pytest.raises(pgrepl.UsageError, match=r"stop_streaming\(\)"):
            start_pgoutput(connection, slot)
        with pytest.raises(pgrepl.UsageError, match=r"stop_streaming\(\)"):
            connection.query("SELECT 1")
        connection.stop_streaming(timeout=PATIENCE)
        with pytest.raises(pgrepl.UsageError, match="open a new connection"):
            start_pgoutput(connection, slot)
        # A physical one works, as often as wanted.
        for _ in range(2):
            position = connection.identify_system().xlogpos
            connection.start_streaming(f"START_REPLICATION PHYSICAL {position}")
            connection.stop_streaming(timeout=PATIENCE)
        with pytest.raises(pgrepl.UsageError, match="open a new connection"):
            start_pgoutput(connection, slot)
        assert next_command_works(connection)


# Not begun


def test_start_that_fails(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with connect(database.dsn()) as connection:
        with pytest.raises(pgrepl.SlotNotFound, match="no_such_slot") as missing:
            start_pgoutput(connection, "no_such_slot")
        assert missing.value.sqlstate == "42704"
        for options, sqlstate in (
            ({"no_such_option": "1"}, "XX000"),
            ({"proto_version": "99"}, "0A000"),
            ({"proto_version": "x"}, "22023"),
            ({"publication_names": "a b"}, "42602"),
        ):
            with pytest.raises(pgrepl.ServerError) as caught:
                start_pgoutput(connection, slot, **options)
            assert caught.value.sqlstate == sqlstate
            assert next_command_works(connection)
        with pytest.raises(pgrepl.ServerError) as syntax:
            connection.start_streaming("START_REPLICATION SLOT")
        assert syntax.value.sqlstate == "42601"
        for command in ("start_replication slot s logical 0/0", "IDENTIFY_SYSTEM", ""):
            with pytest.raises(pgrepl.UsageError, match="START_REPLICATION"):
                connection.start_streaming(command)
        # None of that stands in the way of a good start.
        start_pgoutput(connection, slot)
        database.execute("INSERT INTO item VALUES (1, '')")
        assert len(receive_transactions(connection, 1)) == 4


def test_start_of_a_slot_in_use(database: Database, connect: Connect) -> None:
    slot = create_slot(database)
    with streaming(connect, database, slot) as holder, connect(database.dsn()) as connection:
        with pytest.raises(pgrepl.SlotInUse, match=slot) as caught:
            start_pgoutput(connection, slot)
        assert caught.value.pid == holder.pid
        assert caught.value.sqlstate == "55006"
        assert next_command_works(connection)
        holder.disconnect()
        wait_until_free(database, slot)
        start_pgoutput(connection, slot)
        connection.stop_streaming(timeout=PATIENCE)


def test_slot_of_another_database(database: Database, connect: Connect) -> None:
    slot = create_slot(database)
    with connect(database.cluster.dsn()) as connection:
        with pytest.raises(pgrepl.ServerError) as caught:
            start_pgoutput(connection, slot)
        assert caught.value.sqlstate == "55000"
        assert next_command_works(connection)


@pytest.mark.parametrize("then", ["stop", "receive"])
def test_start_that_a_time_limit_cut_off(database: Database, connect: Connect, then: str) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute("INSERT INTO item VALUES (1, '')")
    with (
        Proxy((database.cluster.host, database.cluster.port)) as proxy,
        connect(database.dsn(host=proxy.host, port=proxy.port)) as connection,
    ):
        proxy.stall()
        with pytest.raises(TimeoutError):
            connection.start_streaming(
                f"START_REPLICATION SLOT {slot} LOGICAL 0/0"
                " (proto_version '1', publication_names 'p')",
                timeout=0.05,
            )
        proxy.resume()
        # It goes on at the next call, as if it had never been cut off.
        if then == "stop":
            assert len(connection.stop_streaming(timeout=PATIENCE)) == 2
            assert next_command_works(connection)
        else:
            assert len(receive_transactions(connection, 1)) == 4


# Ended by an error


def test_cancelled_stream(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        for number in (1, 2):
            database.execute("INSERT INTO item VALUES (%s, '')", [number])
            end = receive_transactions(connection, 1)[-1].wal_end
            report(connection, database, end)
            assert confirmed(database, slot) == end
            database.execute("SELECT pg_cancel_backend(%s)", [connection.pid])
            with pytest.raises(pgrepl.ServerError) as caught:
                receive_data(connection)
            assert caught.value.sqlstate == "57014"
            assert type(caught.value) is pgrepl.ServerError
            with pytest.raises(pgrepl.UsageError, match=r"start_streaming\(\)"):
                connection.receive_wal_message()
            assert next_command_works(connection)
            # A stream that failed was not stopped: another one may follow.
            start_pgoutput(connection, slot)


def test_error_in_the_middle_of_a_big_transaction(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute(BIG)
    with streaming(connect, database, slot) as connection:
        receive_data(connection)
        database.execute("SELECT pg_cancel_backend(%s)", [connection.pid])
        with pytest.raises(pgrepl.ServerError) as caught:
            while connection.receive_wal_messages(timeout=PATIENCE):
                pass
        assert caught.value.sqlstate == "57014"
        assert next_command_works(connection)


def test_error_while_stopping(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute(BIG)
    with streaming(connect, database, slot) as connection:
        receive_data(connection)
        with pytest.raises(TimeoutError):
            connection.stop_streaming(timeout=0)
        database.execute("SELECT pg_cancel_backend(%s)", [connection.pid])
        with contextlib.suppress(pgrepl.ServerError):  # it may have been done by then
            connection.stop_streaming(timeout=PATIENCE)
        assert next_command_works(connection)
        with pytest.raises(pgrepl.UsageError, match="open a new connection"):
            start_pgoutput(connection, slot)


def test_terminated_stream(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    for busy in (False, True):
        with streaming(connect, database, slot) as connection:
            if busy:
                database.execute(BIG)
                receive_data(connection)
            database.execute("SELECT pg_terminate_backend(%s)", [connection.pid])
            with pytest.raises(pgrepl.ServerShutdown) as caught:
                while connection.receive_wal_messages(timeout=PATIENCE):
                    pass
            assert (caught.value.sqlstate, caught.value.severity) == ("57P01", "FATAL")
            assert connection.closed
            with pytest.raises(pgrepl.UsageError, match="closed"):
                connection.receive_wal_message()
        wait_until_free(database, slot)


# The server stops


def read_to_the_end(connection: pgrepl.Connection) -> None:
    """Read on, and answer every question for what was received; the stream never ends so."""
    received = 0
    while True:
        message = receive(connection)
        received = max(received, message.wal_end)
        if not is_data(message) and message.reply_requested:
            connection.send_standby_status(received, received, received)


def log_of(server: TemporaryServer) -> str:
    return server.log_file.read_text(errors="replace")


@pytest.mark.parametrize("pending", [False, True], ids=["idle", "with data"])
def test_fast_shutdown(
    database: Database, stoppable: TemporaryServer, connect: Connect, pending: bool
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        if pending:
            database.execute("INSERT INTO item SELECT i, '' FROM generate_series(1, 5000) i")
        before = len(log_of(stoppable))
        with meanwhile(lambda: stoppable.stop("fast", timeout=PATIENCE)):
            # It waits until everything it has is confirmed.
            with pytest.raises(pgrepl.ServerShutdown) as caught:
                read_to_the_end(connection)
            assert caught.value.sqlstate == "57P01"
            assert connection.closed
        assert not stoppable.is_running
        # Not of harder means, which the stop would have gone over to.
        assert "database system is shut down" in log_of(stoppable)[before:]
    with pytest.raises(pgrepl.ConnectionFailed):
        connect(database.dsn())


def test_immediate_shutdown(
    database: Database, stoppable: TemporaryServer, connect: Connect
) -> None:
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        stoppable.stop("immediate")
        with pytest.raises((pgrepl.ServerShutdown, pgrepl.ConnectionFailed)) as caught:
            read_to_the_end(connection)
        if isinstance(caught.value, pgrepl.ServerShutdown):
            assert caught.value.sqlstate == "57P02"
        assert connection.closed
        with pytest.raises(pgrepl.UsageError, match="closed"):
            connection.receive_wal_message()


def test_restart_goes_on_behind_what_was_acknowledged(
    database: Database, stoppable: TemporaryServer, connect: Connect
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        database.execute("INSERT INTO item VALUES (1, 'acknowledged')")
        end = receive_transactions(connection, 1)[-1].wal_end
        connection.send_standby_status(end, end, end)
        eventually(lambda: confirmed(database, slot) == end, "it is confirmed")
        database.execute("INSERT INTO item VALUES (2, 'received')")
        second = receive_transactions(connection, 1)
    database.execute("INSERT INTO item VALUES (3, 'not sent')")
    stoppable.restart("fast")
    with connect(database.dsn()) as connection:
        # Older servers forget what was confirmed since the last checkpoint. The client does not.
        start_pgoutput(connection, slot, end)
        rows = [bytes(m) for m in receive_transactions(connection, 2) if bytes(m)[:1] == b"I"]
    assert rows[0] == bytes(second[-2])
    assert b"not sent" in rows[1]
    assert len(rows) == 2
