"""Ctrl-C, wherever it comes: the connection goes on as if nothing had happened, or it is closed.

Never is a message lost, an answer taken for another, or a lock left behind.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

import pgrepl
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    create_slot,
    eventually,
    is_data,
    peek,
    receive_data,
    receive_transactions,
    start_pgoutput,
    streaming,
)
from tests.support.clusters import Cluster, Database

_PACKAGE: Final = str(Path(pgrepl.__file__).parent)


class Interruption:
    """Raises KeyboardInterrupt once, at the place of that number.

    Places are those where Python looks for signals, in the package and in what it calls: at the
    beginning of a function, and behind a call into C.
    """

    def __init__(self, place: int) -> None:
        self._left = place
        self.happened = False

    def __enter__(self) -> Interruption:
        sys.setprofile(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, argument: object) -> None:
        if event not in ("call", "c_return") or not _is_inside(frame):
            return
        self._left -= 1
        if self._left == 0:
            self.happened = True
            raise KeyboardInterrupt


def _is_inside(frame: FrameType) -> bool:
    """Whether the package's code runs, or somebody on its behalf."""
    at: FrameType | None = frame
    while at is not None:
        if at.f_code.co_filename.startswith(_PACKAGE):
            return True
        at = at.f_back
    return False


def interrupted(place: int, work: Callable[[], object]) -> bool:
    """Run `work` with an interruption; False if it had no place of that number."""
    interruption = Interruption(place)
    try:
        with interruption:
            work()
    except KeyboardInterrupt:
        pass
    return interruption.happened


def ctrl_c_while_waiting(work: Callable[[], object]) -> None:
    """Run `work`, which must wait for ever, and press Ctrl-C."""
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        work()
        pytest.fail("it was not interrupted")
    timer.join()


# By a real signal, in a wait


def test_signal_while_receiving(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    with streaming(connect, database, slot) as connection:

        def receive_for_ever() -> None:
            while connection.receive_wal_messages():
                pass

        for number in range(2):
            ctrl_c_while_waiting(receive_for_ever)
            assert not connection.closed
            database.execute("INSERT INTO item VALUES (%s, '')", [number])
            kinds = [bytes(receive_data(connection))[:1] for _ in range(3 + (number == 0))]
            assert kinds == [b"B", b"R", b"I", b"C"] if number == 0 else [b"B", b"I", b"C"]
        connection.stop_streaming(timeout=PATIENCE)


def test_signal_while_waiting_for_an_answer(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:
        ctrl_c_while_waiting(lambda: connection.query("SELECT 'old', pg_sleep(1)"))
        assert not connection.closed
        assert connection.query("SELECT 'new'")[0].rows == [("new",)]


def test_signal_while_connecting(connect: Connect) -> None:
    # Whose socket is closed is not asked for: a leak would be a ResourceWarning, thus an error.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        ctrl_c_while_waiting(lambda: connect(host="127.0.0.1", port=port, user="u"))
        gc.collect()


# By design, everywhere


def test_interruption_of_a_query(cluster: Cluster, connect: Connect) -> None:
    place, survived, going = 0, 0, True
    while going:
        with connect(cluster.dsn(sslmode="disable")) as connection:
            query = functools.partial(
                connection.query, "SELECT 'old', i FROM generate_series(1, 3) i; SELECT 1"
            )
            while going and not connection.closed:
                place += 1
                going = interrupted(place, query)
                if not connection.closed:
                    survived += 1
                    assert connection.query("SELECT 'new'", timeout=PATIENCE)[0].rows == [("new",)]
    # Before it is sent and while it is waited for there are some where nothing is the matter.
    assert place > 100
    assert 1 < survived < place


@pytest.mark.parametrize("call", ["receive_wal_message", "receive_wal_messages"])
def test_interruption_of_receiving(database: Database, connect: Connect, call: str) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    for number in range(3):
        database.execute("INSERT INTO item VALUES (%s, repeat('x', 50000))", [number])
    expected = peek(database, slot)
    place, survived, going = 0, 0, True
    while going:
        place += 1
        with connect(database.dsn(sslmode="disable")) as connection:
            start_when_free(connection, slot)
            reading = Reading(connection, call, len(expected))
            going = interrupted(place, reading.read)
            if connection.closed:
                assert reading.payloads() == expected[: len(reading.payloads())]
            else:
                survived += 1
                reading.read()
                assert reading.payloads() == expected
    # The last one was not interrupted.
    assert place > 15
    assert 1 <= survived < place


class Reading:
    """Keeps what comes; looks into it only later, since that can be interrupted as well."""

    def __init__(self, connection: pgrepl.Connection, call: str, count: int) -> None:
        self._receive = getattr(connection, call)
        self._count = count
        self._taken: list[Any] = []

    def read(self) -> None:
        """Read on until that many payloads have come."""
        while len(self.payloads()) < self._count:
            self._taken.append(self._receive(timeout=PATIENCE))

    def payloads(self) -> list[bytes]:
        profile = sys.getprofile()
        sys.setprofile(None)
        try:
            messages = [m for each in self._taken for m in (each if is_batch(each) else [each])]
            return [bytes(message) for message in messages if is_data(message)]
        finally:
            sys.setprofile(profile)


def is_batch(received: Any) -> bool:
    return hasattr(received, "tail")


def start_when_free(connection: pgrepl.Connection, slot: str) -> None:
    def started() -> bool:
        with contextlib.suppress(pgrepl.SlotInUse):
            start_pgoutput(connection, slot)
            return True
        return False

    eventually(started, "the slot is free")


def test_interruption_of_reports(database: Database, connect: Connect) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    database.execute("INSERT INTO item VALUES (1, '')")
    place, survived, going = 0, 0, True
    while going:
        place += 1
        with connect(database.dsn(sslmode="disable")) as connection:
            start_when_free(connection, slot)
            report = functools.partial(connection.send_standby_status, 0, 0, 0)
            going = interrupted(place, report)
            if not connection.closed:
                survived += 1
                connection.send_standby_status(0, 0, 0)
                assert len(receive_transactions(connection, 1)) == 4
                assert len(connection.stop_streaming(timeout=PATIENCE)) == 2
    assert place > 10
    # Behind the sending nobody knows any more what has gone out.
    assert 1 <= survived < place


def test_interruption_of_stopping(database: Database, connect: Connect) -> None:
    slot = create_slot(database)
    place, survived, going = 0, 0, True
    while going:
        place += 1
        with connect(database.dsn(sslmode="disable")) as connection:
            start_when_free(connection, slot)
            stop = functools.partial(connection.stop_streaming, timeout=PATIENCE)
            going = interrupted(place, stop)
            if not connection.closed:
                survived += 1
                if connection_streams(connection):
                    connection.stop_streaming(timeout=PATIENCE)
                assert connection.query("SELECT 'new'", timeout=PATIENCE)[0].rows == [("new",)]
    assert place > 50
    assert 1 <= survived < place


def connection_streams(connection: pgrepl.Connection) -> bool:
    try:
        connection.query("")
    except pgrepl.UsageError:
        return True
    return False
