"""A stream that is closed in order goes on where it stood: nothing comes twice, nothing is missing,
wherever it was, by what the slot knows as well as by a token."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

import pgrepl
from tests.live.sampling import Consumer, Watch, ids, insert
from tests.live.streams import TABLE, Connect, eventually, wait_until_free
from tests.support.clusters import Database

ROUNDS: Final = 20 if os.environ.get("PGREPL_LONG") == "1" else 8
WRITERS: Final = 2


@pytest.fixture
def watch(database: Database) -> Iterator[Watch]:
    """A slot under watch, in a database with `TABLE`."""
    database.execute(TABLE)
    with Watch(database) as watching:
        yield watching


@contextlib.contextmanager
def load(database: Database) -> Iterator[None]:
    """Sessions that write transactions of all sizes, side by side, during the body."""
    stopped = threading.Event()
    threads = [threading.Thread(target=write, args=(database, n, stopped)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def write(database: Database, number: int, stopped: threading.Event) -> None:
    draw, last = random.Random(number), number * 10_000_000
    with database.connect() as session:
        while not stopped.wait(0.01):
            with session.transaction():
                for _ in range(draw.randint(1, 3)):
                    count = draw.choice((1, 2, 10, 10, 1000))
                    session.execute(
                        "INSERT INTO item SELECT i, 'note' FROM generate_series(%s::int, %s) i",
                        [last + 1, last + count],
                    )
                    last += count


class Ledger:
    """What a consumer has dealt with for good: transactions by xid, with the ids of their rows."""

    def __init__(self) -> None:
        self.entries: list[tuple[int | None, list[int]]] = []

    def add(self, transaction: Any, rows: list[int]) -> None:
        self.entries.append((transaction.xid, rows))

    def assert_complete(self, database: Database, watch: Watch) -> None:
        """Everything that was committed, in commit order, once."""
        assert [xid for xid, _ in self.entries] == [each.xid for each in watch.committed()]
        rows = [row for _, rows in self.entries for row in rows]
        assert sorted(rows) == [
            row for (row,) in database.execute("SELECT id FROM item ORDER BY 1")
        ]


class Stop(Exception):
    """A program's own reason to go."""


def take(stream: Any, watch: Watch, ledger: Ledger, draw: random.Random) -> int:
    """Deal with some transactions, and stop somewhere; returns what was acknowledged last."""
    acknowledged, left = 0, draw.randint(1, 10)
    end = draw.choice(("behind it", "in front", "in the middle", "not acknowledged", "interrupt"))
    for transaction in stream.transactions():
        if not left and end == "in front":
            return acknowledged
        if not left and end == "in the middle":
            for _ in transaction:
                return acknowledged
        rows = ids(transaction)
        if not left and end == "not acknowledged":
            return acknowledged
        ledger.add(transaction, rows)
        watch.ack(stream, transaction)
        acknowledged = transaction.end_lsn
        left = max(left - 1, 0)
        if not left and end == "behind it":
            return acknowledged
        if not left and end == "interrupt":
            raise draw.choice((KeyboardInterrupt, Stop))
    raise AssertionError("the stream ended")


def take_the_rest(
    connect: Connect,
    database: Database,
    watch: Watch,
    ledger: Ledger,
    start: pgrepl.ResumeToken | None = None,
    handled: list[int] | None = None,
) -> None:
    """Deal with what is left; of the first transaction, some rows were `handled` before."""
    insert(database, 0)
    wait_until_free(database, watch.slot)
    with (
        connect(database.dsn()) as connection,
        connection.stream(watch.slot, publications=["p"], start=start) as stream,
    ):
        for transaction in stream.transactions():
            ledger.add(transaction, (handled or []) + ids(transaction))
            handled = None
            watch.ack(stream, transaction)
            if ledger.entries[-1][1][-1] == 0:
                break


def test_clean_restarts(database: Database, watch: Watch, connect: Connect) -> None:
    ledger, draw = Ledger(), random.Random(7)
    with load(database):
        for _ in range(ROUNDS):
            wait_until_free(database, watch.slot)
            before = len(ledger.entries)
            with connect(database.dsn()) as connection:
                with (
                    contextlib.suppress(KeyboardInterrupt, Stop),
                    connection.stream(watch.slot, publications=["p"]) as stream,
                ):
                    take(stream, watch, ledger, draw)
                # It went back to commands, having told everything before.
                assert connection.query("SELECT 'next'")[0].rows == [("next",)]
                assert stream.stats().flushed == watch.confirmed
            assert len(ledger.entries) > before
    take_the_rest(connect, database, watch, ledger)
    ledger.assert_complete(database, watch)


def test_restarts_by_token(database: Database, watch: Watch, connect: Connect) -> None:
    """The program keeps a token with what it has dealt with, and the connection is just cut: what
    it had acknowledged may not have got through."""
    ledger, draw = Ledger(), random.Random(8)
    token: pgrepl.ResumeToken | None = None
    handled: list[int] = []
    with load(database):
        for _ in range(ROUNDS):
            wait_until_free(database, watch.slot)
            with connect(database.dsn()) as connection:
                stream = connection.stream(watch.slot, publications=["p"], start=token)
                left = draw.randint(1, 10)
                for transaction in stream.transactions():
                    for change in transaction:
                        handled.append(change.new["id"])
                        if not left and draw.random() < 0.3:
                            break
                    if transaction.end_lsn is None:
                        assert token is not None
                        token = stream.token(token.end_lsn, index=len(handled))
                        break
                    token = stream.token(transaction)
                    ledger.add(transaction, handled)
                    handled = []
                    if draw.random() < 0.5:
                        watch.ack(stream, transaction)
                    if not left:
                        break
                    left -= 1
                token = pgrepl.ResumeToken.parse(str(token))
                connection.disconnect()
                stream.stop()
    take_the_rest(connect, database, watch, ledger, token, handled)
    ledger.assert_complete(database, watch)


def test_acknowledged_long_ago_by_who_never_waits(
    database: Database, watch: Watch, connect: Connect
) -> None:
    """An acknowledgement gets through while the consumer is busy with something else."""
    insert(database, 1, 2)
    with (
        connect(database.dsn(), options="-c wal_sender_timeout=0") as connection,
        connection.stream(watch.slot, publications=["p"], status_interval=600) as stream,
    ):
        transactions = stream.transactions()
        first, done = next(transactions), threading.Event()
        assert ids(first) == [1]
        watch.ack(stream, first)
        eventually(lambda: watch.confirmed == first.end_lsn, "it is confirmed")
        second = next(transactions)
        assert ids(second) == [2]
        thread = threading.Thread(target=lambda: (watch.ack(stream, second), done.set()))
        thread.start()
        thread.join()
        assert done.is_set()
        eventually(lambda: watch.confirmed == second.end_lsn, "from another thread too")


def test_ctrl_c_while_waiting(database: Database, watch: Watch, connect: Connect) -> None:
    insert(database, 1)
    with connect(database.dsn()) as connection:
        with connection.stream(watch.slot, publications=["p"]) as stream:
            for number in (1, 2, 3):
                timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
                with pytest.raises(KeyboardInterrupt):
                    for transaction in stream.transactions():
                        assert ids(transaction) == [number]
                        watch.ack(stream, transaction)
                        timer.start()
                timer.join()
                assert not connection.closed
                insert(database, number + 1)
        assert watch.confirmed >= transaction.end_lsn
    wait_until_free(database, watch.slot)
    with (
        connect(database.dsn()) as connection,
        connection.stream(watch.slot, publications=["p"]) as stream,
    ):
        assert ids(next(stream.transactions())) == [4]


def test_second_consumer(database: Database, watch: Watch, connect: Connect) -> None:
    with connect(database.dsn()) as connection, connect(database.dsn()) as other:
        stream = connection.stream(watch.slot, publications=["p"])
        with Consumer(stream, lambda transaction: watch.ack(stream, transaction)) as consumer:
            for number in (1, 2):
                with pytest.raises(pgrepl.SlotInUse, match=watch.slot) as caught:
                    other.stream(watch.slot, publications=["p"])
                assert caught.value.pid == connection.pid
                # Neither of them has come to harm.
                assert other.query("SELECT 'next'")[0].rows == [("next",)]
                insert(database, number)
                consumer.wait_for(number)
        wait_until_free(database, watch.slot)
        insert(database, 3)
        with other.stream(watch.slot, publications=["p"]) as stream:
            assert ids(next(stream.transactions())) == [3]
