"""A server that goes, or stands still: the stream ends with what it was, and what was not
acknowledged comes again."""

from __future__ import annotations

import gc
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import pgrepl
from pgrepl.testing import TemporaryServer
from tests.live.sampling import Consumer, Watch, ids, insert, replies
from tests.live.streams import (
    PATIENCE,
    TABLE,
    Connect,
    eventually,
    meanwhile,
    wait_until_free,
)
from tests.support.clusters import Database
from tests.support.inside import transport_of


@pytest.fixture
def stoppable(database: Database) -> Iterator[TemporaryServer]:
    """The database's server, which a test may stop: it runs again afterwards."""
    server = database.cluster.own
    yield server
    server.start()


@pytest.fixture
def watch(database: Database, stoppable: TemporaryServer) -> Iterator[Watch]:
    """A slot under watch, in a database with `TABLE`."""
    database.execute(TABLE)
    with Watch(database) as watching:
        yield watching


class Application:
    """A program that keeps what it has dealt with, and the token behind it, by itself."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.kept: list[int] = []
        self.token: pgrepl.ResumeToken | None = None

    def keep(self, stream: Any, transaction: Any, rows: list[int]) -> None:
        self.kept += rows
        self.token = stream.token(transaction)
        self._watch.ack(stream, transaction)


def assert_nothing_is_missing(
    database: Database, watch: Watch, connect: Connect, app: Application, last: int
) -> None:
    """What the application had not acknowledged comes, once."""
    wait_until_free(database, watch.slot)
    insert(database, last)
    # Servers before 17 forget what was confirmed since the last checkpoint; a token does not.
    with (
        connect(database.dsn()) as connection,
        connection.stream(watch.slot, publications=["p"], start=app.token) as stream,
    ):
        for transaction in stream.transactions():
            app.keep(stream, transaction, ids(transaction))
            if app.kept[-1] == last:
                break
    assert app.kept == list(range(1, last + 1))


def was_orderly(server: TemporaryServer, before: int) -> bool:
    """Whether the server's log has a shutdown since then that was not by harder means."""
    return b"database system is shut down" in server.log_file.read_bytes()[before:]


# The server stops


def test_fast_shutdown_while_idle(
    database: Database, watch: Watch, stoppable: TemporaryServer, connect: Connect
) -> None:
    app = Application(watch)
    with connect(database.dsn()) as connection:
        stream = connection.stream(watch.slot, publications=["p"])
        with Consumer(stream) as consumer:
            insert(database, 1, 2)
            consumer.wait_for(2)
            for transaction, rows in consumer.delivered:
                app.keep(stream, transaction, rows)
            before = stoppable.log_file.stat().st_size
            stoppable.stop("fast", timeout=PATIENCE)
            assert was_orderly(stoppable, before)
            assert isinstance(consumer.join(), pgrepl.ServerShutdown)
        with pytest.raises(pgrepl.UsageError, match="ended"):
            stream.ack(transaction)
    stoppable.start()
    assert_nothing_is_missing(database, watch, connect, app, 3)


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "busy"])
def test_fast_shutdown_with_something_to_acknowledge(
    database: Database, watch: Watch, stoppable: TemporaryServer, connect: Connect, waits: bool
) -> None:
    """The server waits for the acknowledgement, however long that takes, and then goes."""
    app, release = Application(watch), threading.Event()
    with connect(database.dsn()) as connection:
        stream = connection.stream(watch.slot, publications=["p"], status_interval=0.2)
        with Consumer(stream, id if waits else lambda _: release.wait(PATIENCE)) as consumer:
            insert(database, 1, 2)
            consumer.wait_for(2 if waits else 1)
            before = stoppable.log_file.stat().st_size
            with meanwhile(lambda: stoppable.stop("fast", timeout=PATIENCE)):
                eventually(
                    lambda: b"received fast shutdown" in stoppable.log_file.read_bytes()[before:],
                    "the server begins to go",
                )
                told = stream.stats().statuses
                eventually(lambda: stream.stats().statuses > told + 2, "the server is answered")
                assert stream.stats().flushed < consumer.delivered[0][0].end_lsn
                assert stoppable.is_running
                release.set()
                consumer.wait_for(2)
                for transaction, rows in consumer.delivered:
                    app.keep(stream, transaction, rows)
                assert isinstance(consumer.join(), pgrepl.ServerShutdown)
            assert was_orderly(stoppable, before)
    stoppable.start()
    assert_nothing_is_missing(database, watch, connect, app, 3)


@pytest.mark.parametrize("mode", ["immediate", "terminate"])
def test_abrupt_end(
    database: Database, watch: Watch, stoppable: TemporaryServer, connect: Connect, mode: str
) -> None:
    app = Application(watch)
    for first in (1, 4, 7):
        with connect(database.dsn()) as connection:
            stream = connection.stream(watch.slot, publications=["p"], start=app.token)
            with Consumer(stream) as consumer:
                insert(database, *range(first, first + 3))
                transaction, rows = consumer.wait_for(3)[0], consumer.delivered[0][1]
                app.keep(stream, transaction, rows)
                if mode == "immediate":
                    stoppable.stop("immediate")
                else:
                    database.execute("SELECT pg_terminate_backend(%s)", [connection.pid])
                error = consumer.join()
            # Whoever is killed by an immediate stop may not get to say so.
            expected = [pgrepl.ServerShutdown, pgrepl.ConnectionFailed]
            assert type(error) in (expected if mode == "immediate" else expected[:1])
            assert connection.closed
        stoppable.start()
        assert_nothing_is_missing(database, watch, connect, app, first + 3)
        app.kept.pop()
        database.execute("DELETE FROM item WHERE id = %s", [first + 3])


# The server stands still


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A server process that does nothing; the kernel goes on to take what is sent to it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_frozen_server_is_found_out(database: Database, watch: Watch, connect: Connect) -> None:
    insert(database, 1, 2)
    assert database.cluster.own.is_running
    with connect(database.dsn()) as connection:
        stream = connection.stream(watch.slot, publications=["p"], receive_timeout=1)
        with Consumer(stream) as consumer:
            first, second = consumer.wait_for(2)
            watch.ack(stream, first)
            eventually(lambda: watch.confirmed == first.end_lsn, "it is confirmed")
            # A server that is only silent answers when it is asked, as often as that happens.
            told = stream.stats().statuses
            eventually(lambda: stream.stats().statuses >= told + 5, "it is asked")
            assert consumer.is_alive
            with frozen(connection.pid):
                watch.ack(stream, second)
                error = consumer.join()
        assert isinstance(error, pgrepl.ConnectionFailed)
        assert "receive_timeout" in str(error)
        assert connection.closed
    wait_until_free(database, watch.slot)
    insert(database, 3)
    with (
        connect(database.dsn()) as connection,
        connection.stream(watch.slot, publications=["p"]) as stream,
    ):
        # What was on its way to the frozen one may have counted.
        assert ids(next(stream.transactions())) in ([2], [3])


@pytest.mark.parametrize("way", ["stop", "close"])
def test_frozen_server_does_not_hold_up_the_end(
    database: Database, watch: Watch, connect: Connect, way: str
) -> None:
    insert(database, 1, 2)
    assert database.cluster.own.is_running
    with connect(database.dsn()) as connection:
        stream = connection.stream(watch.slot, publications=["p"], receive_timeout=None)
        assert ids(next(stream.transactions())) == [1]
        with frozen(connection.pid):
            if way == "stop":
                stream.stop(timeout=0.5)
            else:
                connection.close()
                stream.stop()
            assert connection.closed
    wait_until_free(database, watch.slot)
    with (
        connect(database.dsn()) as connection,
        connection.stream(watch.slot, publications=["p"]) as stream,
    ):
        assert ids(next(stream.transactions())) == [1]


# Many files are open


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Descriptors beyond those that select() can wait for; a skip where they are not allowed."""
    gc.collect()  # or what others left open may be closed, and its number be free, at any moment
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(Path(os.devnull).open("rb"))
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_open_files(database: Database, watch: Watch, connect: Connect) -> None:
    with (
        many_files(1100),
        connect(database.dsn(), options="-c wal_sender_timeout=1s") as connection,
    ):
        stream = connection.stream(watch.slot, publications=["p"], receive_timeout=2)
        assert transport_of(connection).socket.fileno() > 1024
        with Consumer(stream) as consumer:
            insert(database, 1)
            [transaction] = consumer.wait_for(1)
            statuses = replies(database, connection.pid)
            for _ in range(6):
                next(statuses)
            watch.ack(stream, transaction)
            eventually(lambda: watch.confirmed >= transaction.end_lsn, "it is confirmed")
            insert(database, 2)
            consumer.wait_for(2)
