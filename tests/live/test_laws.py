"""The laws of positions, with real servers as judges: what an acknowledgement means, what an idle
stream may report, and what becomes of a transaction that was cut off."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

import pgrepl
from tests.live.sampling import Consumer, Watch, ids, insert, replies
from tests.live.streams import (
    TABLE,
    Connect,
    eventually,
    wait_until_free,
)
from tests.support.clusters import Database
from tests.support.proxy import Proxy

ROWS = 40_000
BIG = f"INSERT INTO item SELECT i, 'some text' FROM generate_series(1, {ROWS}) i"


@pytest.fixture
def watch(database: Database) -> Iterator[Watch]:
    """A slot under watch, in a database with `TABLE`."""
    database.execute(TABLE)
    with Watch(database) as watching:
        yield watching


# What a position means


@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "cut off"])
@pytest.mark.parametrize(
    ("place", "again"), [("commit", [1, 2, 3]), ("end", [2, 3]), ("between", [2, 3])]
)
def test_what_comes_again_after_an_acknowledgement(
    database: Database, watch: Watch, connect: Connect, place: str, again: list[int], stops: bool
) -> None:
    insert(database, 1, 2, 3)
    with connect(database.dsn()) as connection:
        stream = connection.stream(watch.slot, publications=["p"])
        transactions = stream.transactions()
        read = []
        for _ in range(3):
            read.append(next(transactions))
            ids(read[-1])
        first, second, _ = read
        position = {
            "commit": first.commit_lsn,
            "end": first.end_lsn,
            # A record of an insert is in between at least.
            "between": pgrepl.Lsn((first.end_lsn + second.commit_lsn) // 2),
        }[place]
        assert first.commit_lsn <= position < second.commit_lsn
        watch.ack(stream, position)
        if stops:
            stream.stop()
        else:
            eventually(lambda: watch.confirmed == position, "the acknowledgement is confirmed")
            connection.disconnect()
            stream.stop()
    wait_until_free(database, watch.slot)
    assert watch.confirmed == position
    with (
        connect(database.dsn()) as connection,
        connection.stream(watch.slot, publications=["p"]) as stream,
    ):
        transactions = stream.transactions()
        assert [ids(next(transactions)) for _ in again] == [[number] for number in again]


def test_acknowledging_what_was_not_delivered(
    database: Database, watch: Watch, connect: Connect
) -> None:
    insert(database, 1, 2, 3)
    with (
        connect(database.dsn()) as connection,
        connection.stream(watch.slot, publications=["p"]) as stream,
    ):
        transactions = stream.transactions()
        first = next(transactions)
        assert ids(first) == [1]
        # The others may well have come by now: in the same read.
        stream.ack(pgrepl.Lsn(2**64 - 1))
        watch.ack(stream, first)
    assert watch.confirmed == first.end_lsn
    wait_until_free(database, watch.slot)
    with (
        connect(database.dsn()) as connection,
        connection.stream(watch.slot, publications=["p"]) as stream,
    ):
        transactions = stream.transactions()
        assert [ids(next(transactions)) for _ in (2, 3)] == [[2], [3]]


# What an idle stream reports


def test_keepalive_at_the_commit_of_an_open_transaction(
    database: Database, watch: Watch, connect: Connect
) -> None:
    """Rounds of: an open transaction has written its rows, a commit of somebody else has taken them
    to disk, and the stream reports that it has got so far: exactly where the open one's commit
    will be. Then that comes, and the stream breaks off before it is acknowledged."""
    exactly = 0
    with database.connect() as writer, database.cluster.connect() as elsewhere:
        for number in range(12):
            with connect(database.dsn()) as connection:
                stream = connection.stream(watch.slot, publications=["p"])
                with Consumer(stream) as consumer:
                    writer.execute("BEGIN")
                    writer.execute("INSERT INTO item VALUES (%s, '')", [number])
                    elsewhere.execute("SELECT pg_logical_emit_message(true, 'elsewhere', '')")
                    [(position,)] = elsewhere.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
                    eventually(lambda: watch.confirmed >= position, "the idle slot advances")  # noqa: B023
                    before = watch.confirmed
                    assert consumer.delivered == []
                    writer.execute("COMMIT")
                    consumer.wait_for(1)
                    database.execute("SELECT pg_terminate_backend(%s)", [connection.pid])
                    assert isinstance(consumer.join(), pgrepl.Error)
            wait_until_free(database, watch.slot)
            with connect(database.dsn()) as connection:
                stream = connection.stream(watch.slot, publications=["p"])
                with Consumer(stream) as consumer:
                    [transaction] = consumer.wait_for(1)
                    assert consumer.delivered[0][1] == [number]
                    watch.ack(stream, transaction)
            assert before <= transaction.commit_lsn
            exactly += before == transaction.commit_lsn
            wait_until_free(database, watch.slot)
    # Now and then the server itself writes something in between.
    assert exactly > 6


def test_idle_slot_follows_every_step(database: Database, watch: Watch, connect: Connect) -> None:
    """None of them waits for the next interval, which is far away, however close they come."""
    with (
        database.cluster.connect() as elsewhere,
        connect(database.dsn(), options="-c wal_sender_timeout=0") as connection,
    ):
        stream = connection.stream(watch.slot, publications=["p"], status_interval=600)
        with Consumer(stream):
            for number in range(50):
                elsewhere.execute(
                    "DO $$BEGIN FOR i IN 1 .. 20 LOOP"
                    " PERFORM pg_logical_emit_message(true, 'elsewhere', ''); COMMIT;"
                    " END LOOP; END$$"
                )
                [(written,)] = elsewhere.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
                eventually(lambda: watch.confirmed >= written, f"step {number}")  # noqa: B023


@pytest.mark.parametrize("megabytes", [200])
def test_idle_slot_follows_what_others_write(
    database: Database, watch: Watch, connect: Connect, megabytes: int
) -> None:
    with connect(database.dsn()) as connection:
        stream = connection.stream(watch.slot, publications=["p"], status_interval=1)
        with Consumer(stream) as consumer:
            for number, size in enumerate((1, megabytes)):
                insert(database, number)
                transaction = consumer.wait_for(number + 1)[number]
                written = write_elsewhere(database, size)
                eventually(lambda: stream.stats().received >= written, "the stream hears of it")  # noqa: B023
                statuses = replies(database, connection.pid)
                for _ in range(3):
                    next(statuses)
                # Not while something is left to acknowledge.
                assert watch.confirmed < transaction.commit_lsn
                watch.ack(stream, transaction)
                eventually(lambda: watch.confirmed >= written, "the idle slot follows")  # noqa: B023
            for _ in range(3):
                written = write_elsewhere(database, megabytes // 10)
                eventually(lambda: watch.confirmed >= written, "the idle slot follows")  # noqa: B023
            insert(database, 2)
            consumer.wait_for(3)
            assert [rows for _, rows in consumer.delivered] == [[0], [1], [2]]


def write_elsewhere(database: Database, megabytes: int) -> int:
    """Write WAL in another database; returns the position behind it."""
    database.cluster.execute(
        "SELECT count(pg_logical_emit_message(true, 'elsewhere', repeat('x', 1 << 20)))"
        " FROM generate_series(1, %s)",
        [megabytes],
    )
    [(written,)] = database.cluster.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
    return int(written)


# What was cut off


@pytest.mark.parametrize("how", ["terminated", "reset"])
def test_transaction_that_was_cut_off_comes_whole(
    database: Database, watch: Watch, connect: Connect, how: str
) -> None:
    draw = random.Random(3)
    insert(database, 0)
    with Proxy((database.cluster.host, database.cluster.port)) as proxy:

        def open_stream() -> tuple[pgrepl.Connection, Any]:
            wait_until_free(database, watch.slot)
            connection = connect(database.dsn(host=proxy.host, port=proxy.port, sslmode="disable"))
            return connection, connection.stream(watch.slot, publications=["p"])

        connection, stream = open_stream()
        with connection, stream:
            first = next(stream.transactions())
            assert ids(first) == [0]
            watch.ack(stream, first)
        before = watch.confirmed
        database.execute(BIG)
        for _ in range(6):
            connection, stream = open_stream()
            rows: list[int] = []
            with connection, stream:
                transaction = next(stream.transactions())
                upto = draw.randint(0, ROWS)
                for change in transaction:
                    rows.append(change.new["id"])
                    if len(rows) == upto:
                        break
                # This must not count before the end has come.
                watch.ack(stream, transaction)
                if how == "reset":
                    proxy.cut()
                else:
                    database.execute("SELECT pg_terminate_backend(%s)", [connection.pid])
                with pytest.raises((pgrepl.ServerShutdown, pgrepl.ConnectionFailed)):
                    read_on(stream, transaction, rows)
                assert connection.closed
            assert rows == list(range(1, len(rows) + 1))
            if transaction.end_lsn is None:
                wait_until_free(database, watch.slot)
                assert watch.confirmed < transaction.commit_lsn
                assert watch.confirmed >= before
        connection, stream = open_stream()
        with connection, stream:
            transaction = next(stream.transactions())
            assert ids(transaction) == list(range(1, ROWS + 1))
            watch.ack(stream, transaction)
        assert watch.confirmed >= transaction.end_lsn


def read_on(stream: Any, transaction: Any, rows: list[int]) -> None:
    """Read the rest of a transaction, and what follows, to the end that is not regular."""
    rows += ids(transaction)
    while True:
        next(stream.transactions())
