"""One thread reads; others may report and close."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Any

import pytest

import pgrepl
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    confirmed,
    create_slot,
    eventually,
    meanwhile,
    receive_data,
    receive_transactions,
    start_pgoutput,
    streaming,
)
from tests.support.clusters import Database
from tests.support.proxy import Proxy


def read_to_silence(connection: pgrepl.Connection) -> None:
    """Read until the server has no more to tell of itself."""
    with contextlib.suppress(TimeoutError):
        while connection.receive_wal_messages(timeout=0.3):
            pass


# Reports and the end of the connection, from other threads


def test_reports_while_another_thread_waits(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:
        database.execute("INSERT INTO item VALUES (1, '')")
        end = receive_transactions(connection, 1)[-1].wal_end
        with meanwhile(lambda: receive_data(connection)) as reading:
            connection.send_standby_status(end, end, end)
            eventually(lambda: confirmed(database, slot) == end, "the report arrives")
            assert not reading.done()
            database.execute("INSERT INTO item VALUES (2, '')")
            assert bytes(reading.result(PATIENCE))[:1] == b"B"


def test_many_reports_while_another_thread_reads(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    finished = threading.Event()
    received = [0]

    def report_all_the_time() -> None:
        # A server takes in all reports that have come before it sends anything: without a pause a
        # client that is faster than a busy one would hear nothing of it, for as long as that lasts.
        while not finished.wait(0.0005):
            at = received[0]
            connection.send_standby_status(at, at, at, reply_requested=True)

    rows = 20_000
    with streaming(connect, database, slot) as connection:
        database.execute(f"INSERT INTO item SELECT i, '' FROM generate_series(1, {rows}) i")
        with meanwhile(report_all_the_time):
            try:
                transaction = receive_transactions(connection, 1)
                received[0] = transaction[-1].wal_end
            finally:
                finished.set()
        assert len(transaction) == rows + 3
        connection.send_standby_status(received[0], received[0], received[0])
        connection.stop_streaming(timeout=PATIENCE)
    assert confirmed(database, slot) == received[0]


@pytest.mark.parametrize("call", ["receive_wal_message", "receive_wal_messages", "query"])
def test_disconnect_wakes_whoever_waits(database: Database, connect: Connect, call: str) -> None:
    slot = create_slot(database)
    with contextlib.ExitStack() as stack:
        if call == "query":
            connection = stack.enter_context(connect(database.dsn()))
        else:
            connection = stack.enter_context(streaming(connect, database, slot))
            read_to_silence(connection)

        def wait() -> None:
            with pytest.raises(pgrepl.ConnectionFailed, match="closed while another thread"):
                if call == "query":
                    connection.query("SELECT pg_sleep(1000)")
                else:
                    getattr(connection, call)()

        with meanwhile(wait) as waiting:
            eventually(lambda: is_waiting(connection), "the thread waits")
            connection.disconnect()
            waiting.result(PATIENCE)
        assert connection.closed
        assert connection.fileno() == -1


def is_waiting(connection: pgrepl.Connection) -> bool:
    """Whether another thread is reading: then nobody else may."""
    try:
        connection.receive_wal_messages(timeout=0)
    except pgrepl.UsageError as error:
        return "another thread" in str(error)
    except TimeoutError:
        return False
    return False


def test_second_reader_is_refused(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)

    def first() -> Any:
        while True:
            try:
                return receive_data(connection)
            except pgrepl.UsageError as error:
                # Of the two this one may come second.
                assert "another thread" in str(error)

    with streaming(connect, database, slot) as connection:
        read_to_silence(connection)
        with meanwhile(first) as reading:
            eventually(lambda: is_waiting(connection), "the thread waits")
            for call in (connection.receive_wal_message, connection.stop_streaming):
                with pytest.raises(pgrepl.UsageError, match="another thread is using"):
                    call(timeout=0)
            assert not reading.done()
            assert not connection.closed
            database.execute("INSERT INTO item VALUES (1, '')")
            assert bytes(reading.result(PATIENCE))[:1] == b"B"
        # Nor has the refused stop stopped anything.
        assert [bytes(m)[:1] for m in receive_transactions(connection, 1)] == [b"R", b"I", b"C"]


def test_commands_of_two_threads(database: Database, connect: Connect) -> None:
    with connect(database.dsn()) as connection:

        def sleep() -> Any:
            return connection.query("SELECT 'slept', pg_sleep(0.5)")[0].rows

        with meanwhile(sleep) as sleeping:
            eventually(lambda: is_waiting(connection), "the thread waits")
            with pytest.raises(pgrepl.UsageError, match="another thread is using"):
                connection.query("SELECT 'too early'")
            assert sleeping.result(PATIENCE) == [("slept", "")]
        assert connection.query("SELECT 'later'")[0].rows == [("later",)]


def test_report_that_has_to_wait_does_not_disturb_a_reader_in_a_hurry(
    database: Database, connect: Connect
) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    cluster = database.cluster
    with (
        Proxy((cluster.host, cluster.port)) as proxy,
        connect(database.dsn(host=proxy.host, port=proxy.port, sslmode="disable")) as connection,
    ):
        start_pgoutput(connection, slot)
        read_to_silence(connection)
        proxy.stall()
        with socket.socket(fileno=os.dup(connection.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        # Until the socket takes no more.
        with pytest.raises(TimeoutError):
            while True:
                connection.send_standby_status(0, 0, 0, timeout=0)

        def report() -> None:
            connection.send_standby_status(0, 0, 0, timeout=PATIENCE)

        with meanwhile(report):
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    connection.receive_wal_messages(timeout=0.01)
            assert not connection.closed
            proxy.resume()
        database.execute("INSERT INTO item VALUES (1, '')")
        assert [bytes(m)[:1] for m in receive_transactions(connection, 1)][-1] == b"C"
